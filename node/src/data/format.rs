//! What kind of file it is: by its name, as the tools that write such files name them.

use std::path::Path;

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    None,
    /// `.gz` (RFC 1952), of any number of members.
    Gzip,
    /// `.zst` (RFC 8878), of any number of frames.
    Zstd,
}

/// What the unpacked bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Text, if the first bytes look like it.
    Text,
    /// One JSON object a line, with the text in one of its fields: `.jsonl`, `.ndjson`.
    Jsonl,
    /// A table with the text in one of its columns: `.parquet`.
    Parquet,
    /// Token ids, little-endian: `.bin`.
    Tokens,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) packing: Packing,
    pub(super) content: Content,
}

impl Format {
    /// The format that a file's name says. `.bin` is token ids only for those who say how wide they are: other
    /// programs call anything so.
    pub(super) fn of(path: &Path, tokens_expected: bool) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(name), _) => (name, Packing::Gzip),
            (_, Some(name)) => (name, Packing::Zstd),
            _ => (name.as_str(), Packing::None),
        };
        let content = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("jsonl" | "ndjson") => Content::Jsonl,
            Some("parquet") => Content::Parquet,
            Some("bin") if tokens_expected => Content::Tokens,
            _ => Content::Text,
        };
        Self { packing, content }
    }

    /// Whether what was read stays as it is when the file grows: what is added is then read alone.
    pub(super) fn grows(self) -> bool {
        self.packing == Packing::None && self.content != Content::Parquet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_files_are() {
        for (name, packing, content) in [
            ("a.txt", Packing::None, Content::Text),
            ("README", Packing::None, Content::Text),
            ("a.JSONL.gz", Packing::Gzip, Content::Jsonl),
            ("a.ndjson.zst", Packing::Zstd, Content::Jsonl),
            ("a.parquet", Packing::None, Content::Parquet),
            ("train.bin.zst", Packing::Zstd, Content::Tokens),
            (".gz", Packing::Gzip, Content::Text),
            ("a.rs.gz", Packing::Gzip, Content::Text),
        ] {
            assert_eq!(Format::of(Path::new(name), true), Format { packing, content }, "{name}");
        }
        assert_eq!(Format::of(Path::new("a.bin"), false).content, Content::Text);
    }
}
