//! The grammar of a channel: `(Batch | Watermark | Idle | Active | Barrier)* EndOfData Barrier* End`,
//! with watermarks that rise, the highest of them before `EndOfData`, batches of one schema, and
//! barriers in order. Checked on every channel in debug and test builds; a breach is a bug of the
//! engine.

use arrow::datatypes::SchemaRef;

use super::Element;
use crate::checkpoint::{Barrier, CheckpointId};
use crate::time::Watermark;

/// What a channel has carried so far.
#[derive(Debug, Default)]
pub struct Grammar {
    schema: Option<SchemaRef>,
    watermark: Option<Watermark>,
    barrier: Option<CheckpointId>,
    data_ended: bool,
    ended: bool,
}

impl Grammar {
    /// Takes the next element in.
    ///
    /// # Errors
    /// What rule it breaks.
    pub fn accept(&mut self, element: &Element) -> Result<(), String> {
        if self.ended {
            return Err(format!("{element:?} after End"));
        }
        match element {
            Element::Barrier(Barrier { checkpoint, builds_on }) => {
                if self.barrier >= Some(*checkpoint) || *builds_on >= Some(*checkpoint) {
                    return Err(format!("barrier {checkpoint} on {builds_on:?} after {:?}", self.barrier));
                }
                self.barrier = Some(*checkpoint);
            }
            Element::End if !self.data_ended => return Err("End before EndOfData".to_string()),
            Element::End => self.ended = true,
            _ if self.data_ended => return Err(format!("{element:?} after EndOfData")),
            Element::EndOfData if self.watermark != Some(Watermark::MAX) => {
                return Err(format!("EndOfData after watermark {:?}", self.watermark));
            }
            Element::EndOfData => self.data_ended = true,
            Element::Watermark(watermark) => {
                if self.watermark >= Some(*watermark) {
                    return Err(format!("{watermark:?} after {:?}", self.watermark));
                }
                self.watermark = Some(*watermark);
            }
            Element::Batch(batch) => {
                let schema = batch.schema();
                if self.schema.as_ref().is_some_and(|first| *first != schema) {
                    return Err(format!("a batch of {schema:?} after one of {:?}", self.schema));
                }
                self.schema = Some(schema);
            }
            Element::Idle | Element::Active => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breach(elements: &[Element]) -> bool {
        let mut grammar = Grammar::default();
        elements.iter().any(|element| grammar.accept(element).is_err())
    }

    #[test]
    fn what_breaks_the_grammar_is_found() {
        let id = |number| CheckpointId { generation: 1, number };
        let barrier = |number| Element::Barrier(Barrier { checkpoint: id(number), builds_on: None });
        let last = Element::Watermark(Watermark::MAX);
        let end = [last.clone(), Element::EndOfData, barrier(2), Element::End];
        assert!(!breach(&end));
        assert!(breach(&[Element::EndOfData]), "without the highest watermark");
        assert!(breach(&[last.clone(), Element::End]), "without EndOfData");
        assert!(breach(&[last.clone(), Element::EndOfData, Element::Idle]));
        assert!(breach(&[Element::Watermark(Watermark(2)), Element::Watermark(Watermark(2))]));
        assert!(breach(&[barrier(2), barrier(1)]));
        let on_itself = Barrier { checkpoint: id(2), builds_on: Some(id(2)) };
        assert!(breach(&[Element::Barrier(on_itself)]));
        let mut after_end = end.to_vec();
        after_end.push(barrier(3));
        assert!(breach(&after_end));
    }
}
