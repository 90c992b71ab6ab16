//! JSON lines: one object a line, the text in one of its fields.

use std::io::BufRead;

use anyhow::{Result, bail};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::collect::Unreadable;
use super::documents::{MAX_LINE, Sink};

/// Fields that an error names.
const NAMED: usize = 6;

/// Hands on the texts of the lines that begin in the first `limit` bytes, and returns how many bytes they have. A last
/// line without an end that is no JSON is left: it is still being written.
pub(super) fn read(
    source: &mut dyn BufRead,
    limit: u64,
    field: &str,
    sink: &mut dyn Sink,
    bad: &mut Unreadable,
) -> Result<u64> {
    let (mut position, mut number, mut texts) = (0, 0u64, 0u64);
    let mut line = Vec::new();
    let mut first_fields = None;
    let mut without = 0u64;
    while position < limit {
        let Some(Line { bytes, ended, too_long }) = next_line(source, &mut line)? else { break };
        number += 1;
        let trouble = if too_long {
            Some(format!("line {number} has more than {} MB", MAX_LINE >> 20))
        } else if line.iter().all(u8::is_ascii_whitespace) {
            None
        } else {
            match text_of(&line, field) {
                Ok(Found::Text(text)) => {
                    texts += 1;
                    sink.text(text.as_bytes())?;
                    sink.end_document()?;
                    None
                }
                Ok(Found::Not(fields)) => {
                    without += 1;
                    first_fields.get_or_insert(fields);
                    Some(format!("line {number} has no text in the field \"{field}\""))
                }
                Err(_) if !ended => break,
                Err(error) => Some(format!("line {number} is no JSON object: {error}")),
            }
        };
        if let Some(trouble) = trouble {
            bad.note(trouble);
        }
        position += bytes;
    }
    if texts == 0 && number > 0 && position > 0 {
        match first_fields {
            Some(fields) if without > 0 => bail!(
                "no line has text in the field \"{field}\": name the right one with --field (the first line has {fields})"
            ),
            _ => bail!(
                "no line of it is a JSON object with a field \"{field}\": is it JSONL (one object a line)?"
            ),
        }
    }
    Ok(position)
}

/// A line of `bytes` bytes, with its end if it `ended`.
struct Line {
    bytes: u64,
    ended: bool,
    too_long: bool,
}

/// The next line into `line`; `None` at the end of the file. Of a line that is too long only the beginning is kept.
fn next_line(source: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<Option<Line>> {
    line.clear();
    let (mut bytes, mut too_long) = (0, false);
    loop {
        let block = source.fill_buf()?;
        if block.is_empty() {
            return Ok((bytes > 0).then_some(Line { bytes, ended: false, too_long }));
        }
        let end = block.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(block.len(), |end| end + 1);
        if line.len() + used <= MAX_LINE {
            line.extend_from_slice(&block[..used]);
        } else {
            too_long = true;
        }
        source.consume(used);
        bytes += used as u64;
        if end.is_some() {
            return Ok(Some(Line { bytes, ended: true, too_long }));
        }
    }
}

enum Found {
    Text(String),
    /// The names of the fields there are.
    Not(String),
}

fn text_of(line: &[u8], field: &str) -> serde_json::Result<Found> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let found = Object { field }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

/// Reads one field and passes over the others without keeping them.
struct Object<'a> {
    field: &'a str,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut names: Vec<String> = Vec::new();
        let mut text = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.field {
                text = map.next_value::<TextOrNot>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            if names.len() < NAMED {
                names.push(format!("\"{}\"", name.chars().take(40).collect::<String>()));
            }
        }
        Ok(match text {
            Some(text) => Found::Text(text),
            None if names.is_empty() => Found::Not("no fields".into()),
            None => Found::Not(names.join(", ")),
        })
    }
}

/// A string, or anything else.
struct TextOrNot(Option<String>);

impl<'de> serde::Deserialize<'de> for TextOrNot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = TextOrNot;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOrNot, E> {
                Ok(TextOrNot(Some(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<TextOrNot, E> {
                Ok(TextOrNot(Some(text)))
            }

            fn visit_bool<E>(self, _: bool) -> Result<TextOrNot, E> {
                Ok(TextOrNot(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<TextOrNot, E> {
                Ok(TextOrNot(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<TextOrNot, E> {
                Ok(TextOrNot(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<TextOrNot, E> {
                Ok(TextOrNot(None))
            }

            fn visit_unit<E>(self) -> Result<TextOrNot, E> {
                Ok(TextOrNot(None))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<TextOrNot, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(TextOrNot(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TextOrNot, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(TextOrNot(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
