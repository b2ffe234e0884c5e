//! A strict scanner of one JSON text (RFC 8259): it finds where values end without building them.
//!
//! It sees one payload and nothing of its neighbours. What is skipped is checked like what is
//! read, so that a record is good or bad whatever columns are asked for.

use super::super::columns::{Fault, Read, shown};

/// Objects and arrays may be nested this deep, as in serde_json: a bound on the stack.
pub(super) const DEPTH_MAX: usize = 128;

/// A number as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    pub(super) negative: bool,
    /// The digits, when there are only digits and they fit.
    pub(super) integer: Option<u64>,
}

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Holds the last string that had escapes.
    unescaped: String,
}

impl<'a> Scanner<'a> {
    /// Begins at the start of `text`; `scratch` is memory to reuse.
    pub(super) fn new(text: &'a str, scratch: String) -> Scanner<'a> {
        Scanner { text, bytes: text.as_bytes(), at: 0, unescaped: scratch }
    }

    /// Gives the scratch memory back.
    pub(super) fn into_scratch(self) -> String {
        self.unescaped
    }

    /// The next byte that is not white space; it stays.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte` if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `byte`, which must come next.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8, what: &str) -> Read<()> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    /// After an element: whether another one follows (a comma) or the container ends (`close`).
    #[inline]
    pub(super) fn another(&mut self, close: u8) -> Read<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.unexpected(if close == b'}' { "',' or '}'" } else { "',' or ']'" })),
        }
    }

    /// Nothing but white space follows.
    pub(super) fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the record")),
        }
    }

    /// Takes one of the words `true`, `false` and `null`.
    pub(super) fn word(&mut self, word: &'static str) -> Read<()> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.unexpected(word))
    }

    /// Takes `true` or `false`.
    pub(super) fn boolean(&mut self) -> Read<bool> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.mismatch("true or false")),
        }
    }

    /// Takes a string and undoes its escapes. `wanted` says in a reason what was looked for.
    #[inline]
    pub(super) fn string(&mut self, wanted: &str) -> Read<&str> {
        if !self.take(b'"') {
            return Err(self.mismatch(wanted));
        }
        let start = self.at;
        let end = string_stop(self.bytes, start);
        self.at = end;
        if self.bytes.get(end) == Some(&b'"') {
            self.at += 1;
            return Ok(&self.text[start..end]);
        }
        self.string_with_escapes(start)
    }

    fn string_with_escapes(&mut self, mut start: usize) -> Read<&str> {
        self.unescaped.clear();
        loop {
            self.unescaped.push_str(&self.text[start..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.unescaped);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let unescaped = self.escape()?;
                    self.unescaped.push(unescaped);
                }
                Some(_) => return Err(self.fault("a control character in a string")),
                None => return Err(self.fault("the record ends inside a string")),
            }
            start = self.at;
            self.at = string_stop(self.bytes, start);
        }
    }

    fn escape(&mut self) -> Read<char> {
        let Some(byte) = self.bytes.get(self.at).copied() else {
            return Err(self.fault("the record ends inside a string"));
        };
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.fault("an unknown escape in a string")),
        })
    }

    fn unicode_escape(&mut self) -> Read<char> {
        let high = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            let pair = self.bytes[self.at..].starts_with(b"\\u");
            self.at += 2 * usize::from(pair);
            let low = if pair { self.hex4()? } else { 0 };
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.fault("half a surrogate pair in a string"));
            }
            0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.fault("half a surrogate pair in a string"))
    }

    fn hex4(&mut self) -> Read<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.bytes.get(self.at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.fault("a \\u escape without four hex digits"));
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Takes a number; `wanted` says in a reason what was looked for.
    #[inline]
    pub(super) fn number(&mut self, wanted: &str) -> Read<Number<'a>> {
        let first = self.peek();
        if !matches!(first, Some(b'-' | b'0'..=b'9')) {
            return Err(self.mismatch(wanted));
        }
        let start = self.at;
        let negative = first == Some(b'-');
        self.at += usize::from(negative);
        let digits_start = self.at;
        let mut magnitude = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - digits_start;
        if digits == 0 || (digits > 1 && self.bytes[digits_start] == b'0') {
            return Err(self.fault("a malformed number"));
        }
        let mut integer = Some(magnitude);
        // 19 digits always fit into 64 bits.
        if digits > 19 {
            integer = self.text[digits_start..self.at].parse().ok();
        }
        if matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E')) {
            self.fraction_and_exponent()?;
            integer = None;
        }
        Ok(Number { text: &self.text[start..self.at], negative, integer })
    }

    fn fraction_and_exponent(&mut self) -> Read<()> {
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if self.at == start { Err(self.fault("a malformed number")) } else { Ok(()) }
    }

    /// Takes any value; `depth` containers are open around it.
    pub(super) fn skip(&mut self, depth: usize) -> Read<()> {
        match self.peek() {
            Some(b'"') => self.string("a string").map(|_| ()),
            Some(b'{') => self.skip_object(depth),
            Some(b'[') => self.skip_array(depth),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number("a number").map(|_| ()),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn skip_object(&mut self, depth: usize) -> Read<()> {
        self.check_depth(depth)?;
        self.expect(b'{', "'{'")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.string("a field's name")?;
            self.expect(b':', "':'")?;
            self.skip(depth + 1)?;
            if !self.another(b'}')? {
                return Ok(());
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Read<()> {
        self.check_depth(depth)?;
        self.expect(b'[', "'['")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.skip(depth + 1)?;
            if !self.another(b']')? {
                return Ok(());
            }
        }
    }

    /// Whether one more container may be opened inside `depth` others.
    pub(super) fn check_depth(&self, depth: usize) -> Read<()> {
        if depth < DEPTH_MAX { Ok(()) } else { Err(self.fault("it is nested too deep")) }
    }

    /// A well-formed value of the wrong type, or no value at all.
    #[cold]
    pub(super) fn mismatch(&mut self, wanted: &str) -> Box<Fault> {
        let start = match self.peek() {
            Some(_) => self.at,
            None => return self.unexpected(wanted),
        };
        match self.skip(0) {
            Ok(()) => Fault::new(format!("expected {wanted}, found {}", shown(&self.text[start..self.at]))),
            Err(fault) => fault,
        }
    }

    /// Something that JSON does not allow here.
    #[cold]
    pub(super) fn unexpected(&mut self, wanted: &str) -> Box<Fault> {
        let found = self.peek().map(|_| self.text[self.at..].chars().next());
        match found.flatten() {
            Some(found) => self.fault(&format!("expected {wanted}, found {found:?}")),
            None => self.fault(&format!("expected {wanted}, the record ends")),
        }
    }

    #[cold]
    fn fault(&self, what: &str) -> Box<Fault> {
        Fault::new(format!("not JSON at byte {}: {what}", self.at))
    }
}

/// Where a run of plain string bytes ends: at a quote, a backslash, a control character, or the
/// end of the text.
#[inline]
fn string_stop(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<STEP>()) {
        if let Some(found) = stop_in_step(chunk) {
            return at + found;
        }
        at += STEP;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            break;
        }
        at += 1;
    }
    at
}

/// Bytes that are looked at together: one SSE2 register, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
const STEP: usize = 16;

#[cfg(target_arch = "x86_64")]
#[inline]
fn stop_in_step(chunk: &[u8; STEP]) -> Option<usize> {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: SSE2 is part of x86-64; the load takes 16 bytes at any alignment, and there are 16.
    let marks = unsafe {
        let text = _mm_loadu_si128(chunk.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(text, _mm_set1_epi8(0x1f)), text);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control))
    };
    (marks != 0).then(|| marks.trailing_zeros() as usize)
}

/// Bytes that are looked at together: one word.
#[cfg(not(target_arch = "x86_64"))]
const STEP: usize = 8;

/// The lowest marked byte is exact, as a borrow only ever marks bytes above a true one.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn stop_in_step(chunk: &[u8; STEP]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    let word = u64::from_le_bytes(*chunk);
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    let marks = quote | backslash | below(word, 0x20);
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_string_stops_where_a_plain_loop_stops(bytes in proptest::collection::vec(prop_oneof![
            Just(b'"'), Just(b'\\'), 0_u8..0x22, Just(0x7f), Just(0x80), Just(0xff), any::<u8>()], 0..40)) {
            let plain = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
            prop_assert_eq!(string_stop(&bytes, 0), plain);
        }
    }
}
