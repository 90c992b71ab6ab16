//! Parquet: one column of strings, a few rows at a time.
//!
//! The library reads the file; a damaged one may make it panic, which is an error here.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::collect::Unreadable;
use super::documents::Sink;

/// Rows in memory at once.
const ROWS: usize = 64;
/// Columns that an error names.
const NAMED: usize = 6;

/// Hands on the texts of the column called `field` (of a column inside others: with dots between the names). Rows
/// without one are passed over.
pub(super) fn read(path: &Path, field: &str, sink: &mut dyn Sink, bad: &mut Unreadable) -> Result<()> {
    let file = File::open(path)?;
    let damaged = "it is damaged, or no Parquet file: download or write it again";
    let reader = guarded(|| SerializedFileReader::new(file)).context(damaged)?;
    let column = column(reader.metadata().file_metadata().schema_descr(), field)?;
    for group in 0..reader.num_row_groups() {
        let group = guarded(|| reader.get_row_group(group)).context(damaged)?;
        let rows = guarded(|| group.get_column_reader(column)).context(damaged)?;
        let ColumnReader::ByteArrayColumnReader(mut rows) = rows else {
            bail!("its column \"{field}\" does not hold text: name another with --field");
        };
        loop {
            let (mut values, mut present, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
            let (records, ..) =
                guarded(|| rows.read_records(ROWS, Some(&mut present), Some(&mut repeated), &mut values))
                    .context(damaged)?;
            if records == 0 {
                break;
            }
            for value in values {
                match std::str::from_utf8(value.data()) {
                    Ok(text) => {
                        sink.text(text.as_bytes())?;
                        sink.end_document()?;
                    }
                    Err(_) => bad.note(format!("a row's \"{field}\" is not UTF-8")),
                }
            }
        }
    }
    Ok(())
}

/// The number of the column of strings called `field`.
fn column(schema: &SchemaDescriptor, field: &str) -> Result<usize> {
    let names = || schema.columns().iter().map(|column| column.path().string());
    if let Some(at) = names().position(|name| name == field) {
        let kind = schema.column(at).physical_type();
        if kind != parquet::basic::Type::BYTE_ARRAY {
            bail!("its column \"{field}\" holds {kind}, not text: name another with --field");
        }
        return Ok(at);
    }
    let named: Vec<String> = names().take(NAMED).map(|name| format!("\"{name}\"")).collect();
    let more = if schema.num_columns() > NAMED { ", ..." } else { "" };
    bail!("it has no column \"{field}\": name one with --field (it has {}{more})", named.join(", "))
}

fn guarded<T>(run: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(anyhow!("{error}")),
        Err(_) => bail!("the library that reads it does not expect this"),
    }
}
