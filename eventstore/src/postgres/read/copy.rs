//! The binary format of COPY: a header, then per row the number of fields, and each field with its length before it; at
//! the end a negative number of fields.
//!
//! The server sends each row in its own message, and the header with the first row. This code does not rely on it:
//! incomplete data is kept until the next message.

use sqlx::error::BoxDynError;

/// The start of the data; flags and the length of an extension follow, both 0.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Including those two numbers.
const HEADER: usize = SIGNATURE.len() + 8;

/// Parses the data as it arrives.
#[derive(Default)]
pub(crate) struct Copied {
    begun: bool,
    ended: bool,
    /// The received part of an incomplete row.
    rest: Vec<u8>,
}

/// The fields of a row; `None` is NULL.
pub(crate) type Fields<'a, const N: usize> = [Option<&'a [u8]>; N];

impl Copied {
    /// Parses the next message, and passes each complete row to `take` until it returns false.
    pub(crate) fn message<const N: usize, E: From<BoxDynError>>(
        &mut self,
        message: &[u8],
        mut take: impl FnMut(&Fields<'_, N>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if self.rest.is_empty() {
            let (read, more) = self.rows(message, &mut take)?;
            self.rest.extend_from_slice(&message[read..]);
            return Ok(more);
        }
        let mut data = std::mem::take(&mut self.rest);
        data.extend_from_slice(message);
        let (read, more) = self.rows(&data, &mut take)?;
        data.drain(..read);
        self.rest = data;
        Ok(more)
    }

    /// Checks that nothing is missing when no message follows.
    pub(crate) fn end(&self) -> Result<(), BoxDynError> {
        if self.ended && self.rest.is_empty() { Ok(()) } else { Err("the data ends too early".into()) }
    }

    /// Returns how many bytes were read, and whether more rows are wanted.
    fn rows<const N: usize, E: From<BoxDynError>>(
        &mut self,
        data: &[u8],
        take: &mut impl FnMut(&Fields<'_, N>) -> Result<bool, E>,
    ) -> Result<(usize, bool), E> {
        let mut at = 0;
        if !self.begun {
            if data.len() < HEADER {
                return Ok((0, true));
            }
            let flags_and_extension = &data[SIGNATURE.len()..HEADER];
            if !data.starts_with(SIGNATURE) || flags_and_extension != [0; 8] {
                return Err(BoxDynError::from("it is not in the format of COPY that this build knows").into());
            }
            (self.begun, at) = (true, HEADER);
        }
        while let Some((row, next)) = row(data, at)? {
            if self.ended {
                return Err(BoxDynError::from("there is data after the end").into());
            }
            at = next;
            match row {
                Some(fields) if take(&fields)? => {}
                Some(_) => return Ok((at, false)),
                None => self.ended = true,
            }
        }
        Ok((at, true))
    }
}

/// The fields of the row at `at`, or `None` for the end marker, and where the next row begins; `None` if the row is
/// incomplete.
fn row<const N: usize>(data: &[u8], mut at: usize) -> Result<Option<(Option<Fields<'_, N>>, usize)>, BoxDynError> {
    let Some(count) = bytes(data, at) else { return Ok(None) };
    at += 2;
    match usize::try_from(i16::from_be_bytes(count)) {
        Err(_) => return Ok(Some((None, at))),
        Ok(count) if count == N => {}
        Ok(other) => return Err(format!("a row has {other} fields instead of {N}").into()),
    }
    let mut fields = [None; N];
    for field in &mut fields {
        let Some(length) = bytes(data, at) else { return Ok(None) };
        at += 4;
        // A negative length means NULL.
        if let Ok(length) = usize::try_from(i32::from_be_bytes(length)) {
            let Some(value) = data[at..].get(..length) else { return Ok(None) };
            *field = Some(value);
            at += length;
        }
    }
    Ok(Some((Some(fields), at)))
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests;
