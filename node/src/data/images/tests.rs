//! Every form of pictures, and what can be wrong with each.

use super::*;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use tempfile::TempDir;

fn grey() -> Images {
    Images { channels: 1, height: 2, width: 3, classes: 3, class_names: Vec::new() }
}

/// A picture of six pixels that follow from a number.
fn pixels(number: u8) -> [u8; 6] {
    [0, 1, 2, 3, 4, 5].map(|at| number.wrapping_mul(7).wrapping_add(10 * at))
}

fn idx(magic: u32, sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = magic.to_be_bytes().to_vec();
    sizes.iter().for_each(|size| file.extend(size.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Twelve pictures of classes 0, 1, 2, 0, 1, ...
fn idx_files(dir: &Path) -> (PathBuf, PathBuf) {
    let all: Vec<u8> = (0..12).flat_map(pixels).collect();
    let labels: Vec<u8> = (0..12).map(|at| at % 3).collect();
    let (images, names) = (dir.join("train-images-idx3-ubyte"), dir.join("train-labels-idx1-ubyte"));
    fs::write(&images, idx(0x803, &[12, 2, 3], &all)).unwrap();
    fs::write(&names, idx(0x801, &[12], &labels)).unwrap();
    (images, names)
}

fn gzip(path: &Path) -> PathBuf {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&fs::read(path).unwrap()).unwrap();
    let to = PathBuf::from(format!("{}.gz", path.display()));
    fs::write(&to, packed.finish().unwrap()).unwrap();
    fs::remove_file(path).unwrap();
    to
}

fn csv(dir: &Path, heading: &str) -> PathBuf {
    let mut text = heading.to_owned();
    for number in 0..12 {
        let pixels = pixels(number).map(|pixel| pixel.to_string()).join(",");
        text += &format!("{},{pixels}\n", number % 3);
    }
    let path = dir.join("pictures.csv");
    fs::write(&path, text).unwrap();
    path
}

fn png(path: &Path, number: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path, &pixels(number), 3, 2, image::ExtendedColorType::L8).unwrap();
}

fn folder(dir: &Path) -> PathBuf {
    let root = dir.join("pictures");
    for number in 0..12 {
        png(&root.join(format!("{}/{number:02}.png", number % 3)), number);
    }
    root
}

fn whole(path: &Path, images: &Images) -> Result<Vec<(i64, Vec<u8>)>> {
    let set = ImageExamples::test_set(&[path.to_owned()], images)?;
    let batch = set.read(0..set.len(), set.len())?;
    assert_eq!(batch.inputs.size()[1..], [i64::from(images.channels), 2, 3]);
    let bytes = ((batch.inputs + 1.0) * 127.5).round().to_kind(Kind::Uint8).contiguous();
    let all = (0..set.len() as i64).map(|at| {
        let mut pixels = vec![0; images.numbers()];
        bytes.get(at).flatten(0, -1).copy_data(&mut pixels, images.numbers());
        (batch.targets.int64_value(&[at]), pixels)
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    Ok(all)
}

fn refused(path: &Path, images: &Images) -> String {
    format!("{:#}", ImageExamples::test_set(&[path.to_owned()], images).unwrap_err())
}

#[test]
fn all_forms_give_the_same_pictures() {
    let mut wanted: Vec<_> = (0..12).map(|at| (i64::from(at % 3), pixels(at).to_vec())).collect();
    wanted.sort();
    let dir = TempDir::new().unwrap();
    let (images, labels) = idx_files(dir.path());
    assert_eq!(whole(&images, &grey()).unwrap(), wanted);
    assert_eq!(whole(dir.path(), &grey()).unwrap(), wanted, "a folder of such files");
    gzip(&labels);
    assert_eq!(whole(&images, &grey()).unwrap(), wanted, "labels compressed");
    let images = gzip(&images);
    assert_eq!(whole(&images, &grey()).unwrap(), wanted, "both compressed");
    let dir = TempDir::new().unwrap();
    assert_eq!(whole(&csv(dir.path(), ""), &grey()).unwrap(), wanted);
    let table = csv(dir.path(), "label,p0,p1,p2,p3,p4,p5\r\n");
    assert_eq!(whole(&table, &grey()).unwrap(), wanted, "with headings");
    assert_eq!(whole(&gzip(&table), &grey()).unwrap(), wanted, "compressed");
    let root = folder(dir.path());
    assert_eq!(whole(&root, &grey()).unwrap(), wanted);
    let classes = ["0", "one", "2"].map(str::to_owned).to_vec();
    fs::rename(root.join("1"), root.join("one")).unwrap();
    assert_eq!(whole(&root, &Images { class_names: classes, ..grey() }).unwrap(), wanted, "by their names");
}

#[test]
fn pictures_in_colour_come_with_their_channels_first() {
    let dir = TempDir::new().unwrap();
    let colour = Images { channels: 3, ..grey() };
    let path = dir.path().join("0/a.png");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes: Vec<u8> = (0..18).collect();
    image::save_buffer(&path, &bytes, 3, 2, image::ExtendedColorType::Rgb8).unwrap();
    let set = whole(dir.path(), &colour).unwrap();
    assert_eq!(set[0].1, [0, 3, 6, 9, 12, 15, 1, 4, 7, 10, 13, 16, 2, 5, 8, 11, 14, 17]);
    let table = dir.path().join("colour.csv");
    let row: Vec<String> = (0..18).map(|pixel: u8| pixel.to_string()).collect();
    fs::write(&table, format!("0,{}\n", row.join(","))).unwrap();
    assert_eq!(whole(&table, &colour).unwrap(), set);
}

#[test]
fn what_is_held_out_is_never_drawn_and_does_not_change() {
    let dir = TempDir::new().unwrap();
    let root = folder(dir.path());
    for number in 12..200 {
        png(&root.join(format!("{}/{number:02}.png", number % 3)), number);
    }
    let open = || ImageExamples::open(std::slice::from_ref(&root), &grey(), 0.2).unwrap();
    let first = open();
    assert!((20..60).contains(&first.len()), "{}", first.len());
    let names = |examples: &ImageExamples, places: &[Place]| -> Vec<String> {
        places.iter().map(|(_, at)| examples.sources[0].name(*at as usize)).collect()
    };
    let held_out = names(&first, &first.held_out);
    assert!(names(&first, &first.training).iter().all(|name| !held_out.contains(name)));
    // Another picture among them does not move the others.
    png(&root.join("0/new.png"), 3);
    let later = open();
    let later = names(&later, &later.held_out);
    assert!(held_out.iter().all(|name| later.contains(name)));
    assert!(later.len() <= held_out.len() + 1);
}

#[test]
fn the_same_seed_draws_the_same_pictures() {
    let dir = TempDir::new().unwrap();
    let paths = [csv(dir.path(), "")];
    let draw = |seed| {
        let mut examples = ImageExamples::open(&paths, &grey(), 0.3).unwrap();
        let batch = examples.draw(&mut Sampler::new(seed), 8).unwrap();
        assert_eq!((batch.inputs.size(), batch.targets.size()), (vec![8, 1, 2, 3], vec![8]));
        let mut pixels = vec![0f32; 48];
        batch.inputs.flatten(0, -1).copy_data(&mut pixels, 48);
        pixels
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn files_that_cannot_be_read_are_counted_and_the_first_is_named() {
    let dir = TempDir::new().unwrap();
    let root = folder(dir.path());
    fs::write(root.join("1/notes.txt"), "no picture").unwrap();
    fs::write(root.join("1/.hidden"), "left out").unwrap();
    // Its header is fine, the rest is missing: found only when it is drawn.
    let whole = fs::read(root.join("0/00.png")).unwrap();
    fs::write(root.join("0/cut.png"), &whole[..45]).unwrap();
    let mut examples = ImageExamples::open(std::slice::from_ref(&root), &grey(), 0.5).unwrap();
    let summary = examples.summary();
    assert!(summary.contains("1 files cannot be read, the first is") && summary.contains("notes.txt"));
    assert!(summary.starts_with("13 pictures (") && summary.contains("5 of class 0"), "{summary}");
    let cut = examples.sources[0].labels().len();
    let cut = (0..cut).find(|at| examples.sources[0].name(*at).contains("cut")).unwrap();
    examples.training = vec![(0, cut as u32), (0, 1)];
    let batch = examples.draw(&mut Sampler::new(1), 32).unwrap();
    assert!(batch.len() == 32 && examples.failed_reads() > 0);
    examples.training = vec![(0, cut as u32)];
    let error = format!("{:#}", examples.draw(&mut Sampler::new(1), 1).unwrap_err());
    assert!(error.contains("cut.png"), "{error}");
}

#[test]
fn wrong_tables_and_files_are_refused_in_a_sentence() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    for (text, words) in [
        ("0,1,2,3,4,5,6\n3,1,2,3,4,5,6\n", &["\"3\" of line 2 of", "outside the range", "0 to 2"][..]),
        ("0,1,2,3,4,5,6\n1,1,2,3,4,5\n", &["line 2 of", "has 5 pixels", "2 x 3", "have 6"]),
        ("0,1,2,3,4,5,256\n", &["line 1 of", "\"256\" is no pixel"]),
        ("label,p0\n", &["has no picture"]),
        ("", &["has no picture"]),
    ] {
        let error = refused(&at("wrong.csv", text.as_bytes()), &grey());
        assert!(words.iter().all(|word| error.contains(word)) && error.contains("wrong.csv"), "{error}");
    }
    let long = refused(&at("long.csv", "7".repeat(100_000).as_bytes()), &grey());
    assert!(long.contains("line 1 of") && long.contains("longer than a label and 6 pixels"), "{long}");

    let images = at("a-images-idx3-ubyte", &idx(0x803, &[2, 2, 3], &[0; 12]));
    assert!(refused(&images, &grey()).contains("a-labels-idx1-ubyte must lie beside it"));
    for (labels, words) in [
        (idx(0x801, &[2], &[0, 3]), "\"3\" of picture 1 in"),
        (idx(0x801, &[3], &[0, 1, 1]), "2 pictures, but"),
        (idx(0x801, &[2], &[0]), "says that it holds 2 labels, but has 1"),
        (idx(0x801, &[u32::MAX], &[0]), "too many"),
        (b"PK\x03\x04 something".to_vec(), "no IDX file"),
        (b"".to_vec(), "ends within its first bytes"),
    ] {
        at("a-labels-idx1-ubyte", &labels);
        let error = refused(&images, &grey());
        assert!(error.contains(words) && error.contains("a-labels"), "{words}: {error}");
    }
    at("a-labels-idx1-ubyte", &idx(0x801, &[2], &[0, 1]));
    assert!(refused(&images, &Images { height: 3, ..grey() }).contains("2 rows and 3 columns"));
    assert!(refused(&images, &Images { channels: 3, ..grey() }).contains("in colour"));
    at("a-images-idx3-ubyte", &idx(0x803, &[2, 2, 3], &[0; 11]));
    assert!(refused(&images, &grey()).contains("which take 12 bytes, but has 11"));
    let packed = gzip(&images);
    assert!(refused(&packed, &grey()).contains("which take 12 bytes, but has 11"));
    assert!(refused(&at("notes.txt", b"words"), &grey()).contains("notes.txt is no data for a swarm"));
}

#[test]
fn wrong_folders_are_refused_in_a_sentence() {
    let dir = TempDir::new().unwrap();
    let root = folder(dir.path());
    fs::create_dir(root.join("cats")).unwrap();
    let error = refused(&root, &grey());
    assert!(error.contains("cats is called like no class") && error.contains("0 to 2"), "{error}");
    fs::remove_dir(root.join("cats")).unwrap();
    for file in fs::read_dir(root.join("2")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let error = refused(&root, &grey());
    assert!(error.contains("pictures/2 has no picture that can be read"), "{error}");
    image::save_buffer(root.join("2/wide.png"), &[0; 8], 4, 2, image::ExtendedColorType::L8).unwrap();
    let error = refused(&root, &grey());
    assert!(error.contains("wide.png is 4 pixels wide and 2 high") && error.contains("3 wide"), "{error}");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let error = refused(&dir.path().join("empty"), &grey());
    assert!(error.contains("empty has no pictures") && error.contains("subfolder"), "{error}");
    assert!(refused(&dir.path().join("nowhere"), &grey()).contains("nowhere"));
    let one = [csv(dir.path(), "")];
    let error = ImageExamples::open(&one, &grey(), 1e-9).unwrap_err().to_string();
    assert!(error.contains("none of 12 falls into the held-out part"), "{error}");
}
