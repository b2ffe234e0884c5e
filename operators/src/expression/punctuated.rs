//! Watermarks that an expression finds in the rows.

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use thalweg_engine::Error;
use thalweg_engine::graph::Expression;
use thalweg_engine::time::WatermarkStrategy;

use super::ColumnExpression;

/// Watermarks that the rows say themselves: `marks` gives for each row the time up to which no row
/// follows it, or null.
///
/// ```
/// use thalweg_operators::expression::punctuated;
///
/// let hourly = punctuated("case when kind = 'hour is over' then at end");
/// assert_eq!(hourly.to_string(), "punctuated by case when kind = 'hour is over' then at end");
/// ```
pub fn punctuated(marks: impl Into<ColumnExpression>) -> WatermarkStrategy {
    let marks = marks.into();
    let name = marks.text().to_string();
    WatermarkStrategy::punctuated(&name, move |rows| {
        let column = marks.evaluate(rows)?;
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        times.cloned().ok_or_else(|| {
            Error::user(format!("`{}` is {}, not a timestamp", marks.text(), column.data_type()))
        })
    })
}
