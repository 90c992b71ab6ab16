//! All formats, whole and damaged: what is in them arrives, and what is wrong is said.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::tokens::Tokenizer;

const CONTEXT: usize = 8;

fn options() -> CorpusOptions {
    CorpusOptions::new(CONTEXT)
}

/// All tokens, in the order of the string.
fn all(corpus: &Corpus) -> Vec<u32> {
    corpus.string().unwrap()
}

fn text(corpus: &Corpus) -> String {
    String::from_utf8(all(corpus).into_iter().map(|token| u8::try_from(token).unwrap()).collect()).unwrap()
}

fn open(path: &Path, options: CorpusOptions) -> Result<Corpus, CorpusError> {
    Corpus::open(&[path.to_owned()], options)
}

fn refused(path: &Path, options: CorpusOptions) -> String {
    open(path, options).unwrap_err().to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A Parquet file with the columns `id` and `body`; a row without a body in the middle.
fn parquet_file(path: &Path, texts: &[&str], compression: Compression) {
    let body = Type::primitive_type_builder("body", Physical::BYTE_ARRAY)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::String))
        .build()
        .unwrap();
    let id =
        Type::primitive_type_builder("id", Physical::INT32).with_repetition(Repetition::REQUIRED).build();
    let schema = Type::group_type_builder("schema")
        .with_fields(vec![Arc::new(id.unwrap()), Arc::new(body)])
        .build()
        .unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)).unwrap();
    for texts in texts.chunks(100) {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i32> = (0..=texts.len() as i32).collect();
        ids.typed::<Int32Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut bodies = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
        let mut present = vec![1; texts.len() + 1];
        present[texts.len() / 2] = 0;
        bodies.typed::<ByteArrayType>().write_batch(&values, Some(&present), None).unwrap();
        bodies.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A folder with one file.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn every_format_gives_the_same_text() {
    let documents: Vec<String> =
        (0..250).map(|i| format!("document {i}: a line\nand \"one\" more, ü {i}")).collect();
    let lines: String = documents
        .iter()
        .map(|text| format!("{}\n", serde_json::json!({"n": [1, {"body": "no"}], "body": text, "x": null})))
        .collect();
    let expected: String = documents.iter().map(|text| format!("{text}\n")).collect();
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.txt"), expected.trim_end()).unwrap();
    fs::write(
        path("a.txt.gz"),
        [gzip(&expected.as_bytes()[..700]), gzip(&expected.trim_end().as_bytes()[700..])].concat(),
    )
    .unwrap();
    fs::write(path("a.txt.zst"), zstd(expected.trim_end().as_bytes())).unwrap();
    fs::write(path("a.jsonl"), &lines).unwrap();
    fs::write(path("a.ndjson"), lines.trim_end()).unwrap();
    fs::write(path("a.jsonl.gz"), gzip(lines.as_bytes())).unwrap();
    fs::write(path("a.jsonl.zst"), zstd(lines.as_bytes())).unwrap();
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    parquet_file(&path("plain.parquet"), &texts, Compression::UNCOMPRESSED);
    parquet_file(&path("snappy.parquet"), &texts, Compression::SNAPPY);
    parquet_file(&path("zstd.parquet"), &texts, Compression::ZSTD(Default::default()));
    parquet_file(&path("gzip.parquet"), &texts, Compression::GZIP(Default::default()));
    let mut seen = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let options = CorpusOptions { field: "body".into(), ..options() };
        let corpus = open(&path, options).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(text(&corpus), expected, "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 11);
}

#[test]
fn with_a_tokenizer_documents_end_with_its_end_of_text() {
    let (tokenizer, _) = crate::tokens::tests::small();
    let lines = "{\"text\": \"the swarm learns\"}\n".repeat(50);
    let (_folder, path) = file("a.jsonl", &lines);
    let options = CorpusOptions { tokenizer: tokenizer.clone(), vocabulary: 300, ..options() };
    let corpus = open(&path, options.clone()).unwrap();
    let mut document = Vec::new();
    tokenizer.encode("the swarm learns", &mut document).unwrap();
    document.push(299);
    assert_eq!(all(&corpus), document.repeat(50));
    assert!(corpus.summary().contains(&format!("{} tokens", document.len() * 50)), "{}", corpus.summary());
    // A long text is encoded in pieces that end with lines: nothing is lost between them.
    let long: String = (0..30_000).map(|i| format!("the swarm learns round {i}\n")).collect();
    let (_folder, path) = file("long.txt", &long);
    let corpus = open(&path, options).unwrap();
    let tokens = all(&corpus);
    let (end, before) = tokens.split_last().unwrap();
    assert_eq!((*end, tokenizer.decode(before).unwrap()), (299, long));
}

#[test]
fn token_ids_are_read_as_they_are_and_checked() {
    let ids: Vec<u32> = (0..1000).map(|i| i * 7 % 300).collect();
    let two: Vec<u8> = ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect();
    let four: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let with = |width| CorpusOptions { token_bytes: Some(width), vocabulary: 300, ..options() };
    for (name, content, width) in [
        ("a.bin", two.clone(), 2),
        ("a.bin", four.clone(), 4),
        ("a.bin.gz", gzip(&two), 2),
        ("a.bin.zst", zstd(&four), 4),
    ] {
        let (_folder, path) = file(name, content);
        assert_eq!(all(&open(&path, with(width)).unwrap()), ids, "{name}");
    }
    for (name, content) in [("a.bin", two[..1999].to_vec()), ("a.bin.gz", gzip(&two[..1999]))] {
        let (_folder, path) = file(name, content);
        let error = refused(&path, with(2));
        assert!(
            error.contains(name) && error.contains("1999 bytes") && error.contains("--token-bytes"),
            "{error}"
        );
    }
    for (name, content) in [("a.bin", two.clone()), ("a.bin.zst", zstd(&two))] {
        let (_folder, path) = file(name, content);
        let error = refused(&path, CorpusOptions { vocabulary: 256, ..with(2) });
        assert!(
            error.contains(name) && error.contains("ends at 255") && error.contains("another tokenizer"),
            "{error}"
        );
    }
    let (_folder, path) = file("a.bin", &two);
    let error = refused(&path, options());
    assert!(error.contains("a.bin") && error.contains("--token-bytes 2 or 4"), "{error}");
    // Written over while it is being trained on, with ids that the model does not have.
    let corpus = open(&path, with(2)).unwrap();
    fs::write(&path, vec![0xff; 2000]).unwrap();
    let error = corpus.read_held_out(0, &mut [0; 9]).unwrap_err();
    assert!(matches!(error, CorpusError::Read { .. }), "{error}");
}

#[test]
fn what_is_wrong_with_a_named_file_is_said_in_one_sentence() {
    let good = "{\"text\": \"some words that are long enough\"}\n".repeat(100);
    let packed = gzip(good.as_bytes());
    let mut flipped = packed.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 0xff;
    let frames = zstd(good.as_bytes());
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("cut.jsonl.gz", packed[..packed.len() / 2].to_vec(), &["damaged", "gzip"]),
        ("crc.jsonl.gz", flipped, &["damaged", "gzip"]),
        ("no.txt.gz", good.clone().into_bytes(), &["no gzip file"]),
        ("cut.jsonl.zst", frames[..frames.len() / 2].to_vec(), &["damaged", "zstd"]),
        (
            "field.jsonl",
            b"{\"content\": \"x\", \"id\": 3}\n".repeat(9),
            &["field \"text\"", "--field", "\"content\""],
        ),
        ("number.jsonl", b"{\"text\": 3}\n".repeat(9), &["field \"text\"", "--field"]),
        ("prose.jsonl", b"some words\n".repeat(9), &["is it JSONL"]),
        ("no.parquet", good.clone().into_bytes(), &["no Parquet file"]),
        ("a.parquet.gz", packed.clone(), &["unpack it first"]),
    ];
    for (name, content, words) in cases {
        let (_folder, path) = file(name, content);
        let error = refused(&path, options());
        assert!(error.contains(name), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    parquet_file(&path, &["some words that are long enough"; 50], Compression::SNAPPY);
    let error = refused(&path, options());
    assert!(error.contains("no column \"text\"") && error.contains("\"id\", \"body\""), "{error}");
    let error = refused(&path, CorpusOptions { field: "id".into(), ..options() });
    assert!(error.contains("\"id\" holds INT32") && error.contains("--field"), "{error}");
    let good = fs::read(&path).unwrap();
    let mut refusals = 0;
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        fs::write(&path, bad).unwrap();
        refusals += usize::from(open(&path, CorpusOptions { field: "body".into(), ..options() }).is_err());
    }
    assert!(refusals > 10, "{refusals}");
}

#[test]
fn in_a_folder_bad_files_are_counted_and_the_first_is_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("bad.jsonl.gz"), "no gzip").unwrap();
    fs::write(folder.path().join("field.jsonl"), "{\"content\": \"x\"}\n").unwrap();
    let lines = format!("{{\"text\": \"{}\"}}\n{{\"id\": 1}}\nbroken\n", "good ".repeat(100));
    fs::write(folder.path().join("good.jsonl"), lines).unwrap();
    let summary = open(folder.path(), options()).unwrap().summary();
    assert!(summary.starts_with("1 file, 501 bytes of text"), "{summary}");
    assert!(
        summary.contains("2 could not be read, the first: ") && summary.contains("bad.jsonl.gz"),
        "{summary}"
    );
    assert!(
        summary.contains("2 lines or rows have no text in \"text\"") && summary.contains("line 2"),
        "{summary}"
    );
}

#[test]
fn a_line_without_an_end_is_not_kept_in_memory() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("long.jsonl.gz");
    let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(super::documents::MAX_LINE));
    let good = "{\"text\": \"a line of its own\"}\n".repeat(20);
    fs::write(&path, gzip(format!("{long}{good}").as_bytes())).unwrap();
    let corpus = open(&path, options()).unwrap();
    assert_eq!(text(&corpus), "a line of its own\n".repeat(20));
    assert!(corpus.summary().contains("line 1 has more than 16 MB"), "{}", corpus.summary());
}

#[test]
fn a_decompression_bomb_ends_at_the_cap() {
    // 64 MB of zeros are 64 kB; of a real bomb any amount.
    let mut bomb = b"text ".to_vec();
    bomb.resize(64 << 20, b' ');
    let (folder, path) = file("bomb.txt.gz", gzip(&bomb));
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    let keep = folder.path().join("keep");
    let options = CorpusOptions { keep: Some(keep.clone()), max_kept: 1 << 20, ..options() };
    let error = refused(&path, options);
    assert!(error.contains("bomb.txt.gz") && error.contains("--max-cache"), "{error}");
    assert_eq!(fs::read_dir(keep).unwrap().count(), 0, "nothing is left of it");
}

#[test]
fn tokens_are_kept_and_used_again() {
    let (tokenizer, _) = crate::tokens::tests::small();
    let folder = tempdir().unwrap();
    let (data, keep) = (folder.path().join("data"), folder.path().join("keep"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.txt"), "the swarm learns a round\n".repeat(50)).unwrap();
    fs::write(data.join("b.jsonl"), "{\"text\": \"the swarm learns\"}\n".repeat(50)).unwrap();
    let options = || CorpusOptions {
        tokenizer: tokenizer.clone(),
        vocabulary: 300,
        keep: Some(keep.clone()),
        ..options()
    };
    let files = || {
        let all = fs::read_dir(&keep).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> =
            all.map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect();
        all.retain(|(name, _)| name.to_string_lossy().ends_with(".tokens"));
        all.sort();
        all
    };
    let corpus = open(&data, options()).unwrap();
    let (first, held) = (all(&corpus), corpus.held_out_tokens());
    drop(corpus);
    let kept = files();
    assert_eq!(kept.len(), 2);
    let corpus = open(&data, options()).unwrap();
    assert_eq!((all(&corpus), corpus.held_out_tokens()), (first.clone(), held));
    assert_eq!(files(), kept, "nothing was written anew");
    // One is damaged, one is missing, and rubbish lies about: made again, the rest goes.
    fs::write(keep.join(&kept[0].0), "damaged").unwrap();
    fs::remove_file(keep.join(&kept[1].0)).unwrap();
    fs::write(keep.join("0123.tokens"), "rubbish").unwrap();
    let corpus = open(&data, options()).unwrap();
    assert_eq!((all(&corpus), corpus.held_out_tokens()), (first, held));
    let names =
        |files: &[(std::ffi::OsString, _)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&files()), names(&kept));
    // Another tokenizer reads the same text anew.
    let corpus = open(&data, CorpusOptions { tokenizer: Tokenizer::Bytes, ..options() }).unwrap();
    assert!(text(&corpus).starts_with("the swarm learns a round\n"));
}
