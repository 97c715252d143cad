//! The file of a bulk read: a ZIP with one CSV, whose first row names the columns by API names. Zoho documents that `id` is always among them and
//! that times are ISO 8601 ("Download Bulk Read Result"); UTF-8 and the quoting of RFC 4180 are assumed, and a file that has them not is refused.
//!
//! Whoever reads has all of the ZIP in memory and one row of the table: neither what a row nor what the table unpacks to is without a limit.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::ops::ControlFlow;
use std::rc::Rc;

use csv::StringRecord;
use zip::ZipArchive;

/// The largest table, in bytes: 200,000 rows of fifty fields of a hundred.
pub const MAX_TABLE_BYTES: u64 = 1024 * 1024 * 1024;
/// The longest row, in bytes.
pub const MAX_ROW_BYTES: u64 = 4 * 1024 * 1024;
/// The column of a record's id.
pub const ID: &str = "id";

/// Why a file cannot be read. What stands in it is not repeated: it may be values of records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not a ZIP that we can read.
    #[error("it is no readable ZIP")]
    NoZip,
    /// Not exactly one CSV in it.
    #[error("it holds {0} tables instead of one")]
    Tables(usize),
    /// It unpacks to more than is allowed.
    #[error("the table, or a row of it, is larger than allowed")]
    TooLarge,
    /// The first row does not name each column once, or not the id's.
    #[error("its first row does not name the columns, id among them, once each")]
    Header,
    /// A row has no form, or not as many cells as there are columns, or is not UTF-8.
    #[error("row {0} cannot be read")]
    Row(u64),
}

/// One row.
#[derive(Debug)]
pub struct Row<'a> {
    columns: &'a HashMap<String, usize>,
    cells: &'a StringRecord,
}

impl Row<'_> {
    /// What stands in the column; `None`: there is no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.cells.get(*self.columns.get(column)?)
    }
}

/// Reads the table and hands its rows to `each`, in their order, until that breaks off. How many there were. Blocks while it unpacks.
///
/// # Errors
/// [`Unreadable`]. Rows before the one that cannot be read were handed over by then.
pub fn read(zip: &[u8], each: impl FnMut(&Row<'_>) -> ControlFlow<()>) -> Result<u64, Unreadable> {
    bounded(zip, MAX_TABLE_BYTES, MAX_ROW_BYTES, each)
}

fn bounded(zip: &[u8], most: u64, most_of_row: u64, mut each: impl FnMut(&Row<'_>) -> ControlFlow<()>) -> Result<u64, Unreadable> {
    let mut archive = ZipArchive::new(Cursor::new(zip)).map_err(|_| Unreadable::NoZip)?;
    let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(|_| Unreadable::NoZip)?;
    let tables: Vec<String> =
        names.into_iter().map(|name| name.into_owned()).filter(|name| name.to_ascii_lowercase().ends_with(".csv")).collect();
    let [table] = tables.as_slice() else { return Err(Unreadable::Tables(tables.len())) };
    let unpacked = archive.by_name(table).map_err(|_| Unreadable::NoZip)?;
    let left_of_row = Rc::new(Cell::new(most_of_row));
    let bounded = Bounded { inner: unpacked, left: most, left_of_row: left_of_row.clone() };
    let mut reader = csv::ReaderBuilder::new().from_reader(bounded);
    let names = reader.headers().map_err(|error| why(&error, Unreadable::Header))?;
    let columns: HashMap<String, usize> = names.iter().enumerate().map(|(at, name)| (column(name), at)).collect();
    if columns.len() != names.len() || !columns.contains_key(ID) {
        return Err(Unreadable::Header);
    }
    let mut cells = StringRecord::new();
    let mut rows = 0;
    loop {
        left_of_row.set(most_of_row);
        match reader.read_record(&mut cells) {
            Ok(true) => rows += 1,
            Ok(false) => return Ok(rows),
            Err(error) => return Err(why(&error, Unreadable::Row(rows + 1))),
        }
        if each(&Row { columns: &columns, cells: &cells }).is_break() {
            return Ok(rows);
        }
    }
}

/// `Id` and `id` are both to be found in Zoho's pages.
fn column(name: &str) -> String {
    let name = name.trim();
    if name.eq_ignore_ascii_case(ID) { ID.to_owned() } else { name.to_owned() }
}

fn why(error: &csv::Error, otherwise: Unreadable) -> Unreadable {
    match error.kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Unreadable::TooLarge,
        csv::ErrorKind::Io(_) => Unreadable::NoZip,
        _ => otherwise,
    }
}

/// A reader that gives up when there is more than was allowed, whatever the ZIP says of its size.
struct Bounded<R> {
    inner: R,
    left: u64,
    left_of_row: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let taken = u64::try_from(read).unwrap_or(u64::MAX);
        match (self.left.checked_sub(taken), self.left_of_row.get().checked_sub(taken)) {
            (Some(left), Some(left_of_row)) => {
                self.left = left;
                self.left_of_row.set(left_of_row);
                Ok(read)
            }
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn cells(zip: &[u8], column: &str) -> Result<Vec<Option<String>>, Unreadable> {
        let mut found = Vec::new();
        read(zip, |row| {
            found.push(row.get(column).map(str::to_owned));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    #[test]
    fn cells_are_found_by_the_names_of_their_columns_whatever_stands_in_them() {
        let table = "\u{feff}Id,Deal_Name,Amount\r\n1,\"Cable, \"\"big\"\"\nand long\",5.50\r\n2,Ärger,\r\n";
        let zip = zipped(&[("Deals_1.csv", table.as_bytes())]);
        assert_eq!(cells(&zip, "id"), Ok(vec![Some("1".to_owned()), Some("2".to_owned())]));
        assert_eq!(cells(&zip, "Deal_Name"), Ok(vec![Some("Cable, \"big\"\nand long".to_owned()), Some("Ärger".to_owned())]));
        assert_eq!(cells(&zip, "Amount"), Ok(vec![Some("5.50".to_owned()), Some(String::new())]));
        assert_eq!(cells(&zip, "Stage"), Ok(vec![None, None]), "no such column: unknown, not empty");
    }

    #[test]
    fn what_is_not_the_table_that_is_documented_is_refused_and_never_guessed_at() {
        let good: &[u8] = b"id,A\n1,2\n";
        for (zip, why) in [
            (b"<html></html>".to_vec(), Unreadable::NoZip),
            (zipped(&[]), Unreadable::Tables(0)),
            (zipped(&[("a.csv", good), ("b.csv", good)]), Unreadable::Tables(2)),
            (zipped(&[("a.csv", b"A,B\n1,2\n")]), Unreadable::Header),
            (zipped(&[("a.csv", b"id,A,A\n1,2,3\n")]), Unreadable::Header),
            (zipped(&[("a.csv", b"id,A\n1,2\n3\n")]), Unreadable::Row(2)),
            (zipped(&[("a.csv", b"id,A\n1,\xff\n")]), Unreadable::Row(1)),
            (zipped(&[("a.csv", b"")]), Unreadable::Header),
        ] {
            assert_eq!(cells(&zip, "A"), Err(why));
        }
        let mut cut = zipped(&[("a.csv", &good.repeat(2000))]);
        cut.truncate(cut.len() / 2);
        assert_eq!(cells(&cut, "A"), Err(Unreadable::NoZip));
    }

    #[test]
    fn a_small_zip_that_unpacks_to_much_is_given_up_at_the_limit() {
        let none = |_: &Row<'_>| ControlFlow::Continue(());
        let long = zipped(&[("a.csv", format!("id,A\n{}", "1,2\n".repeat(100_000)).as_bytes())]);
        assert_eq!(bounded(&long, 200_000, 1_000_000, none), Err(Unreadable::TooLarge));
        let wide = zipped(&[("a.csv", format!("id,A\n1,\"{}\"\n", "x".repeat(400_000)).as_bytes())]);
        assert_eq!(bounded(&wide, 1_000_000, 200_000, none), Err(Unreadable::TooLarge));
        assert_eq!(bounded(&wide, 1_000_000, 500_000, none), Ok(1));
    }
}
