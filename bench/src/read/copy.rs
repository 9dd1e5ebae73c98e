//! The binary format of COPY: a header, then for each row the number of fields, and each field after its length.

use uuid::Uuid;

use crate::Fault;
use crate::baseline::postgres::time_since_2000;
use crate::plain::Plain;

/// The first bytes. The flags and the length of an extension follow, both 0.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The length with those two numbers.
const HEADER: usize = SIGNATURE.len() + 8;

/// Parses the data piece by piece. A piece may end anywhere.
#[derive(Default)]
pub(super) struct Rows {
    rest: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl Rows {
    /// Parses the next piece, and calls `take` with every complete event.
    pub(super) fn read(&mut self, piece: &[u8], mut take: impl FnMut(Plain)) -> Result<(), Fault> {
        if self.rest.is_empty() {
            let read = self.read_whole(piece, &mut take)?;
            self.rest.extend_from_slice(&piece[read..]);
        } else {
            let mut data = std::mem::take(&mut self.rest);
            data.extend_from_slice(piece);
            let read = self.read_whole(&data, &mut take)?;
            data.drain(..read);
            self.rest = data;
        }
        Ok(())
    }

    /// Checks that nothing is missing at the end.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.ended && self.rest.is_empty() { Ok(()) } else { Err("the data ends too early".into()) }
    }

    /// Returns how many bytes were read.
    fn read_whole(&mut self, data: &[u8], take: &mut impl FnMut(Plain)) -> Result<usize, Fault> {
        let mut at = 0;
        if !self.begun {
            if data.len() < HEADER {
                return Ok(0);
            }
            if !data.starts_with(SIGNATURE) {
                return Err("this is not a binary COPY".into());
            }
            (self.begun, at) = (true, HEADER);
        }
        while let Some((row, next)) = fields(data, at)? {
            match row {
                Some(fields) => take(plain(&fields)?),
                None => self.ended = true,
            }
            at = next;
        }
        Ok(at)
    }
}

/// How many columns are read.
const FIELDS: usize = 14;

type Fields<'a> = [Option<&'a [u8]>; FIELDS];

/// The fields of the row at `at`, or `None` for the end mark, and where the next row begins; `None` if the row is
/// incomplete.
fn fields(data: &[u8], mut at: usize) -> Result<Option<(Option<Fields<'_>>, usize)>, Fault> {
    let Some(count) = bytes(data, at) else { return Ok(None) };
    at += 2;
    match usize::try_from(i16::from_be_bytes(count)) {
        Err(_) => return Ok(Some((None, at))),
        Ok(FIELDS) => {}
        Ok(other) => return Err(format!("a row has {other} fields").into()),
    }
    let mut fields = [None; FIELDS];
    for field in &mut fields {
        let Some(length) = bytes(data, at) else { return Ok(None) };
        at += 4;
        // A negative length means NULL.
        if let Ok(length) = usize::try_from(i32::from_be_bytes(length)) {
            let Some(value) = data.get(at..at + length) else { return Ok(None) };
            *field = Some(value);
            at += length;
        }
    }
    Ok(Some((Some(fields), at)))
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at + N)?.try_into().ok()
}

fn plain(fields: &Fields<'_>) -> Result<Plain, Fault> {
    let value = |at: usize| fields[at].ok_or("a column is NULL");
    let text = |at| Ok::<_, Fault>(str::from_utf8(value(at)?)?.to_owned());
    let optional = |at: usize| fields[at].map(|value| str::from_utf8(value).map(str::to_owned)).transpose();
    let number = |at| Ok::<_, Fault>(i64::from_be_bytes(value(at)?.try_into()?));
    // JSONB is text after the number of its format.
    let json = |at| match value(at)? {
        [1, json @ ..] => Ok::<_, Fault>(json),
        _ => Err("an unknown format of JSONB".into()),
    };
    Ok(Plain {
        position: number(0)?,
        event_id: Uuid::from_slice(value(1)?)?,
        tenant: text(2)?,
        aggregate_type: text(3)?,
        aggregate_id: text(4)?,
        version: number(5)?,
        event_type: text(6)?,
        schema_version: number(7)?,
        paid: serde_json::from_slice(json(8)?)?,
        metadata: str::from_utf8(json(9)?)?.to_owned(),
        correlation_id: optional(10)?,
        causation_id: optional(11)?,
        append_id: fields[12].map(Uuid::from_slice).transpose()?,
        recorded_at: time_since_2000(number(13)?)?,
    })
}

#[cfg(test)]
mod tests;
