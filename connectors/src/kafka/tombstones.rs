//! Records without a value: Kafka's way to say that what stood under a key is gone. A missing value
//! is not an empty one, so no format is asked what it means; the source says.
//!
//! A tombstone has nothing but its key. To an upsert source that is enough: the key's columns are
//! read from it as the sinks write them (one column as its text or bytes, several as a JSON array of
//! texts), all others are null.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Int8Array, RecordBatch, StringArray, StringViewArray,
};
use arrow::compute::{cast, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field, Schema};
use thalweg_engine::record::OP_COLUMN;
use thalweg_engine::{Error, Result};

use crate::format::{BadRecord, Decoded};

/// What becomes of a record without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnTombstone {
    /// It deletes the row of its key: the source is an upsert, and an edge with a column
    /// [`OP_COLUMN`].
    Delete,
    /// It is a row of nulls, with its key where the source is an upsert.
    Row,
    /// It is left out, and counted.
    Drop,
}

/// The columns of an upsert's key, and what a tombstone becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upsert {
    /// Empty: the source is no upsert.
    pub key: Vec<String>,
    /// `None`: what suits the source.
    pub on_tombstone: Option<OnTombstone>,
}

impl Upsert {
    /// Upserts delete; others have nothing that could be deleted.
    pub fn on_tombstone(&self) -> OnTombstone {
        let suits = if self.key.is_empty() { OnTombstone::Drop } else { OnTombstone::Delete };
        self.on_tombstone.unwrap_or(suits)
    }

    /// Whether rows of tombstones can be made: `format` and `metadata` are the columns of the value,
    /// and those about the record.
    ///
    /// # Errors
    /// A user error that names the column, or the option.
    pub fn check(&self, format: &Schema, metadata: &[Field]) -> Result<()> {
        let of_metadata = |name: &String| metadata.iter().find(|field| field.name() == name);
        for name in &self.key {
            match (format.field_with_name(name), of_metadata(name)) {
                (Ok(field), _) => check_type(field)?,
                (Err(_), Some(_)) => {}
                (Err(_), None) => {
                    return Err(Error::user(format!("there is no column {name:?} to upsert by")));
                }
            }
        }
        match self.on_tombstone() {
            OnTombstone::Drop => return Ok(()),
            OnTombstone::Delete if self.key.is_empty() => {
                let what = "a tombstone can delete only where rows replace each other: say what the source is an upsert by";
                return Err(Error::user(what));
            }
            OnTombstone::Delete | OnTombstone::Row => {}
        }
        let mut others = format.fields().iter().filter(|field| !self.key.contains(field.name()));
        match others.find(|field| !field.is_nullable()) {
            Some(field) => Err(Error::user(format!(
                "column {:?} must not be null, and a tombstone has no value for it: let it be null, or drop tombstones",
                field.name()
            ))),
            None => Ok(()),
        }
    }

    /// Gathers tombstones for a reader of `format`'s columns.
    pub fn gatherer(&self, format: &Schema) -> Tombstones {
        let key = self.key.iter().map(|name| format.index_of(name).ok()).collect();
        Tombstones { on: self.on_tombstone(), key, rows: Vec::new(), keys: Vec::new() }
    }
}

/// Types that a text of a key is read into.
fn check_type(field: &Field) -> Result<()> {
    match field.data_type() {
        DataType::Utf8View | DataType::BinaryView | DataType::Boolean | DataType::Date32 => Ok(()),
        DataType::Timestamp(_, _) => Ok(()),
        number if number.is_integer() => Ok(()),
        other => {
            Err(Error::user(format!("column {:?} is {other}, which cannot be a record's key", field.name())))
        }
    }
}

/// The tombstones among the records of a fetch.
pub(crate) struct Tombstones {
    on: OnTombstone,
    /// The columns that a key is read into; `None` for one that is there beside the value.
    key: Vec<Option<usize>>,
    /// Which of the records they are, and their keys.
    rows: Vec<usize>,
    keys: Vec<Option<Vec<u8>>>,
}

impl Tombstones {
    /// Whether they are left out.
    pub fn are_dropped(&self) -> bool {
        self.on == OnTombstone::Drop
    }

    /// Whether rows say if they delete.
    fn deletes(&self) -> bool {
        self.on == OnTombstone::Delete
    }

    /// Record `row` of the fetch is one.
    pub fn push(&mut self, row: usize, key: Option<&[u8]>) {
        self.rows.push(row);
        self.keys.push(key.map(<[u8]>::to_vec));
    }

    /// Fills the key's columns of decoded tombstones. One whose key cannot be read is a bad record.
    /// Returns the mark of each row, too, where rows have one.
    ///
    /// # Errors
    /// An internal error.
    pub fn complete(&mut self, decoded: Decoded) -> Result<(Decoded, Option<ArrayRef>)> {
        if self.rows.is_empty() && !self.deletes() {
            return Ok((decoded, None));
        }
        let (rows, keys) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.keys));
        let places = Places::new(&decoded, &rows);
        let columns: Vec<usize> = self.key.iter().flatten().copied().collect();
        let mut records = decoded.records;
        let mut bad = decoded.bad;
        let mut good = vec![true; records.num_rows()];
        if !rows.is_empty() && !self.key.is_empty() {
            let fields: Vec<_> =
                self.key.iter().map(|index| index.map(|at| records.schema().field(at).clone())).collect();
            let read = read_keys(&keys, &fields)?;
            for (tombstone, reason) in read.bad {
                good[places.of[tombstone]] = false;
                bad.push(BadRecord { index: rows[tombstone], reason, payload: Vec::new(), time: None });
            }
            records = fill(&records, &columns, &read.columns, &places.of)?;
        }
        let marks = self.deletes().then(|| {
            let mut marks = vec![1_i8; records.num_rows()];
            places.of.iter().for_each(|&place| marks[place] = -1);
            Int8Array::from(marks)
        });
        let is_whole = good.iter().all(|&good| good);
        let good = BooleanArray::from(good);
        bad.sort_by_key(|record| record.index);
        if !is_whole {
            records = filter_record_batch(&records, &good)?;
        }
        let marks = match marks {
            Some(marks) if is_whole => Some(Arc::new(marks) as ArrayRef),
            Some(marks) => Some(arrow::compute::filter(&marks, &good)?),
            None => None,
        };
        Ok((Decoded { records, bad }, marks))
    }

    /// The column of marks.
    pub fn mark_field() -> Field {
        Field::new(OP_COLUMN, DataType::Int8, false)
    }
}

/// Where the tombstones are among the decoded rows, which lack the bad ones.
struct Places {
    of: Vec<usize>,
}

impl Places {
    fn new(decoded: &Decoded, rows: &[usize]) -> Places {
        let mut bad = decoded.bad.iter().map(|record| record.index).peekable();
        let mut before = 0;
        let place = |&row: &usize| {
            while bad.next_if(|&bad| bad < row).is_some() {
                before += 1;
            }
            row - before
        };
        Places { of: rows.iter().map(place).collect() }
    }
}

/// The records with the keys of tombstones in the key's columns.
fn fill(
    records: &RecordBatch,
    columns: &[usize],
    keys: &[ArrayRef],
    places: &[usize],
) -> Result<RecordBatch> {
    let mut choice: Vec<(usize, usize)> = (0..records.num_rows()).map(|row| (0, row)).collect();
    for (tombstone, &place) in places.iter().enumerate() {
        choice[place] = (1, tombstone);
    }
    let mut filled = records.columns().to_vec();
    for (&column, key) in columns.iter().zip(keys) {
        filled[column] = interleave(&[filled[column].as_ref(), key.as_ref()], &choice)?;
    }
    // The rows of bad keys may still hold nulls where none may be; they are filtered out.
    let fields: Vec<Field> =
        records.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), filled)?)
}

/// Keys, read.
struct ReadKeys {
    /// One array for each column that a key is read into.
    columns: Vec<ArrayRef>,
    /// Which could not be read, and why.
    bad: Vec<(usize, String)>,
}

/// Reads keys as the sinks write them.
fn read_keys(keys: &[Option<Vec<u8>>], fields: &[Option<Field>]) -> Result<ReadKeys> {
    let parts: Vec<Result<Vec<Vec<u8>>, String>> =
        keys.iter().map(|key| parts_of(key.as_deref(), fields.len())).collect();
    let mut bad: Vec<Option<String>> = parts.iter().map(|parts| parts.as_ref().err().cloned()).collect();
    let mut columns = Vec::new();
    for (position, field) in fields.iter().enumerate() {
        let Some(field) = field else { continue };
        let bytes: Vec<Option<&[u8]>> =
            parts.iter().map(|parts| parts.as_ref().ok().map(|parts| parts[position].as_slice())).collect();
        let column = column_of(&bytes, field.data_type())?;
        for (tombstone, bad) in bad.iter_mut().enumerate() {
            if bad.is_none() && column.is_null(tombstone) {
                *bad =
                    Some(format!("column {:?}: a tombstone's key is no {}", field.name(), field.data_type()));
            }
        }
        columns.push(column);
    }
    let bad = bad.into_iter().enumerate().filter_map(|(tombstone, bad)| Some((tombstone, bad?))).collect();
    Ok(ReadKeys { columns, bad })
}

/// A key's texts, one for each column.
fn parts_of(key: Option<&[u8]>, count: usize) -> Result<Vec<Vec<u8>>, String> {
    let key = key.ok_or("a tombstone has no key")?;
    if count == 1 {
        return Ok(vec![key.to_vec()]);
    }
    match serde_json::from_slice::<Vec<String>>(key) {
        Ok(texts) if texts.len() == count => Ok(texts.into_iter().map(String::into_bytes).collect()),
        _ => Err(format!("a tombstone's key is no JSON array of {count} texts")),
    }
}

/// Texts as values of a type; null where one is no such value.
fn column_of(texts: &[Option<&[u8]>], data_type: &DataType) -> Result<ArrayRef> {
    if *data_type == DataType::BinaryView {
        return Ok(Arc::new(BinaryViewArray::from_iter(texts.iter().copied())));
    }
    let texts = texts.iter().map(|text| std::str::from_utf8((*text)?).ok());
    if *data_type == DataType::Utf8View {
        return Ok(Arc::new(StringViewArray::from_iter(texts)));
    }
    let texts: StringArray = texts.collect();
    Ok(cast(&texts, data_type)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::array::cast::AsArray;
    use arrow::datatypes::{Int8Type, Int64Type};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("who", DataType::Utf8View, false),
            Field::new("text", DataType::Utf8View, true),
        ])
    }

    fn upsert(key: &[&str], on_tombstone: Option<OnTombstone>) -> Upsert {
        Upsert { key: key.iter().map(ToString::to_string).collect(), on_tombstone }
    }

    /// Records 0 and 3 are rows, 2 was bad, 1 and 4 are tombstones.
    fn decoded() -> Decoded {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![10, 0, 13, 0]));
        let who: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "", "d", ""]));
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x"), None, Some("y"), None]));
        let records = RecordBatch::try_new(Arc::new(schema()), vec![ids, who, text]).unwrap();
        let bad = vec![BadRecord { index: 2, reason: "no".into(), payload: Vec::new(), time: None }];
        Decoded { records, bad }
    }

    #[test]
    fn tombstones_delete_by_the_key_that_a_sink_writes() {
        let mut tombstones = upsert(&["id", "who"], None).gatherer(&schema());
        tombstones.push(1, Some(b"[\"11\",\"b\"]"));
        tombstones.push(4, Some(b"[\"14\",\"e\"]"));
        let (decoded, marks) = tombstones.complete(decoded()).unwrap();
        assert_eq!(decoded.records.column(0).as_primitive::<Int64Type>().values(), &[10, 11, 13, 14]);
        let who: Vec<_> = decoded.records.column(1).as_string_view().iter().flatten().collect();
        assert_eq!(who, ["a", "b", "d", "e"]);
        assert_eq!(decoded.records.column(2).null_count(), 2);
        assert_eq!(marks.unwrap().as_primitive::<Int8Type>().values(), &[1, -1, 1, -1]);
        assert_eq!(decoded.bad.len(), 1);
    }

    #[test]
    fn a_key_that_cannot_be_read_makes_a_bad_record_with_its_index() {
        for (key, reason) in [
            (None, "a tombstone has no key"),
            (Some(b"11".as_slice()), "a tombstone's key is no JSON array of 2 texts"),
            (Some(b"[\"eleven\",\"b\"]"), "column \"id\": a tombstone's key is no Int64"),
        ] {
            let mut tombstones = upsert(&["id", "who"], None).gatherer(&schema());
            tombstones.push(1, key);
            tombstones.push(4, Some(b"[\"14\",\"e\"]"));
            let (decoded, marks) = tombstones.complete(decoded()).unwrap();
            let bad: Vec<_> = decoded.bad.iter().map(|bad| (bad.index, bad.reason.as_str())).collect();
            assert_eq!(bad, [(1, reason), (2, "no")]);
            assert_eq!(decoded.records.column(0).as_primitive::<Int64Type>().values(), &[10, 13, 14]);
            assert_eq!(marks.unwrap().as_primitive::<Int8Type>().values(), &[1, 1, -1]);
        }
    }

    #[test]
    fn what_a_tombstone_cannot_be_is_said_when_the_job_is_built() {
        let check = |key: &[&str], on| {
            upsert(key, on).check(&schema(), &[Field::new("kafka_key", DataType::BinaryView, true)])
        };
        assert!(check(&["id", "who"], None).is_ok() && check(&[], None).is_ok());
        assert!(check(&["kafka_key"], Some(OnTombstone::Drop)).is_ok());
        for (key, on, said) in [
            (&["nope"][..], None, "no column \"nope\" to upsert by"),
            (&[], Some(OnTombstone::Delete), "say what the source is an upsert by"),
            (&["id"], None, "column \"who\" must not be null"),
            (&[], Some(OnTombstone::Row), "column \"id\" must not be null"),
        ] {
            let error = check(key, on).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
