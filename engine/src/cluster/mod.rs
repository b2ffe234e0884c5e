//! The coordinator and the messages it speaks.
