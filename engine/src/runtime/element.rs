//! What flows on a channel.

use crate::checkpoint::Barrier;
use crate::record::Batch;
use crate::time::Watermark;

/// One element of a channel. Their order on any channel is
/// `(Batch | Watermark | Idle | Active | Barrier)* EndOfData Barrier* End`,
/// and the highest watermark comes right before `EndOfData`.
#[derive(Clone, Debug)]
pub enum Element {
    /// Rows.
    Batch(Batch),
    /// No row at or below it follows.
    Watermark(Watermark),
    /// The channel takes no part in the watermark until `Active`.
    Idle,
    /// It takes part again.
    Active,
    /// What came before belongs to the checkpoint, what follows does not.
    Barrier(Barrier),
    /// No row follows.
    EndOfData,
    /// Nothing follows.
    End,
}
