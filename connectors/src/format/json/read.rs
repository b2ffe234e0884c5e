//! JSON values into columns.

use arrow::datatypes::TimeUnit;

use super::super::BadTime;
use super::super::columns::{Column, Fault, Read, Record, Values, shown};
use super::super::timestamp::{convert_epoch, convert_fractional_epoch, parse_date, parse_instant};
use super::scanner::{Number, Scanner};

/// Whole floats beyond this (2^53) are not taken for integers: they have lost digits already.
const WHOLE_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads one payload as one record. After an error the record's columns have to be cut back.
pub(super) fn read_payload(
    record: &mut Record,
    payload: &[u8],
    epoch: TimeUnit,
    scratch: &mut String,
) -> Read<()> {
    let text = std::str::from_utf8(payload)
        .map_err(|error| Fault::new(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut scanner = Scanner::new(text, std::mem::take(scratch));
    let mut read = || {
        if scanner.peek() != Some(b'{') {
            return Err(scanner.mismatch("an object"));
        }
        read_object(record, &mut scanner, epoch, 0)?;
        scanner.end()
    };
    let result = read();
    *scratch = scanner.into_scratch();
    result
}

fn read_object(record: &mut Record, scanner: &mut Scanner<'_>, epoch: TimeUnit, depth: usize) -> Read<()> {
    scanner.check_depth(depth)?;
    scanner.expect(b'{', "'{'")?;
    let row = record.rows();
    let mut place = 0;
    let mut more = !scanner.take(b'}');
    while more {
        let column = record.column_of(&mut place, scanner.string("a field's name")?);
        scanner.expect(b':', "':'")?;
        match column {
            Some(column) => {
                let column = &mut record.columns_mut()[column];
                if column.len() > row {
                    // A name that comes twice: the last one counts, as in most JSON libraries.
                    column.truncate(row);
                }
                read_value(column, scanner, epoch, depth + 1)
                    .map_err(|fault| fault.in_column(column.field().name()))?;
            }
            None => scanner.skip(depth + 1)?,
        }
        more = scanner.another(b'}')?;
    }
    record.end_row()
}

/// Reads a value inside `depth` containers.
fn read_value(column: &mut Column, scanner: &mut Scanner<'_>, epoch: TimeUnit, depth: usize) -> Read<()> {
    if scanner.peek() == Some(b'n') {
        scanner.word("null")?;
        return column.push_null("is null and must not be");
    }
    match &mut column.values {
        Values::Boolean(values) => values.append(scanner.boolean()?),
        Values::Int8(values) => values.push(integer(scanner, "an 8-bit integer")?),
        Values::Int16(values) => values.push(integer(scanner, "a 16-bit integer")?),
        Values::Int32(values) => values.push(integer(scanner, "a 32-bit integer")?),
        Values::Int64(values) => values.push(integer(scanner, "a 64-bit integer")?),
        Values::UInt8(values) => values.push(integer(scanner, "an unsigned 8-bit integer")?),
        Values::UInt16(values) => values.push(integer(scanner, "an unsigned 16-bit integer")?),
        Values::UInt32(values) => values.push(integer(scanner, "an unsigned 32-bit integer")?),
        Values::UInt64(values) => values.push(integer(scanner, "an unsigned 64-bit integer")?),
        Values::Float32(values) => {
            let number = scanner.number("a number")?;
            values
                .push(number.text.parse().ok().filter(|v: &f32| v.is_finite()).ok_or_else(|| range(number))?);
        }
        Values::Float64(values) => values.push(float(scanner.number("a number")?)?),
        Values::Date(values) => {
            let text = scanner.string("a date")?;
            values.push(parse_date(text).ok_or_else(|| unlike("a date such as 2013-01-31", text))?);
        }
        Values::Time(values, unit) => values.push(time(scanner, epoch, *unit)?),
        Values::String(values) => values.push(scanner.string("a string")?),
        Values::Struct(record) => {
            if scanner.peek() != Some(b'{') {
                return Err(scanner.mismatch("an object"));
            }
            read_object(record, scanner, epoch, depth)?;
        }
        Values::List(ends, items) => {
            if scanner.peek() != Some(b'[') {
                return Err(scanner.mismatch("an array"));
            }
            scanner.check_depth(depth)?;
            scanner.expect(b'[', "'['")?;
            let mut more = !scanner.take(b']');
            while more {
                read_value(items, scanner, epoch, depth + 1)?;
                more = scanner.another(b']')?;
            }
            ends.push(
                i32::try_from(items.len()).map_err(|_| Fault::new("the batch's list items pass 2^31"))?,
            );
        }
    }
    column.filled();
    Ok(())
}

fn unlike(wanted: &str, found: &str) -> Box<Fault> {
    Fault::new(format!("expected {wanted}, found {}", shown(found)))
}

fn range(number: Number<'_>) -> Box<Fault> {
    Fault::new(format!("number out of range: {}", shown(number.text)))
}

/// A whole number that fits: digits, or a float without a fraction such as `3.0` or `1e3`.
fn integer<T: TryFrom<i128>>(scanner: &mut Scanner<'_>, wanted: &str) -> Read<T> {
    let number = scanner.number(wanted)?;
    let whole = match number.integer {
        Some(magnitude) if number.negative => Some(-i128::from(magnitude)),
        Some(magnitude) => Some(i128::from(magnitude)),
        None => {
            let float: Option<f64> = number.text.parse().ok();
            float.filter(|v| v.fract() == 0.0 && v.abs() <= WHOLE_FLOAT_MAX).map(|v| v as i128)
        }
    };
    whole.and_then(|whole| T::try_from(whole).ok()).ok_or_else(|| unlike(wanted, number.text))
}

fn float(number: Number<'_>) -> Read<f64> {
    match number.integer {
        // Exact: up to 2^53 every integer is a float; -0 keeps its sign.
        Some(magnitude) if magnitude <= 1 << 53 => {
            let value = magnitude as f64;
            Ok(if number.negative { -value } else { value })
        }
        _ => number.text.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| range(number)),
    }
}

/// A timestamp: RFC 3339 text, or an epoch number of unit `epoch`.
fn time(scanner: &mut Scanner<'_>, epoch: TimeUnit, unit: TimeUnit) -> Read<i64> {
    const WANTED: &str = "a timestamp (RFC 3339 or an epoch number)";
    if scanner.peek() == Some(b'"') {
        let text = scanner.string(WANTED)?;
        let fault = |bad| unlike(WANTED, text).of_time(bad);
        let instant = parse_instant(text).ok_or_else(|| fault(BadTime::Unparsable))?;
        return instant.in_unit(unit).ok_or_else(|| fault(BadTime::OutOfRange));
    }
    let number = scanner.number(WANTED)?;
    let value = match number.integer.map(i64::try_from) {
        Some(Ok(magnitude)) => {
            convert_epoch(if number.negative { -magnitude } else { magnitude }, epoch, unit)
        }
        Some(Err(_)) => None,
        None => number.text.parse().ok().and_then(|value| convert_fractional_epoch(value, epoch, unit)),
    };
    value.ok_or_else(|| range(number).of_time(BadTime::OutOfRange))
}
