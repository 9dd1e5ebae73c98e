//! Messages that the compiler shows: text that is put together while it compiles.

/// More than the longest message, which has three names.
const MOST_BYTES: usize = 1024;

pub(crate) struct Message {
    bytes: [u8; MOST_BYTES],
    len: usize,
}

impl Message {
    pub(crate) const fn new(text: &str) -> Self {
        Self { bytes: [0; MOST_BYTES], len: 0 }.text(text)
    }

    /// With more text; a piece that has no room is left out.
    pub(crate) const fn text(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        if text.len() > MOST_BYTES - self.len {
            return self;
        }
        let mut at = 0;
        while at < text.len() {
            self.bytes[self.len] = text[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    pub(crate) const fn number(self, number: u32) -> Self {
        let rest = if number > 9 { self.number(number / 10) } else { self };
        let digit = [b'0' + (number % 10) as u8];
        match std::str::from_utf8(&digit) {
            Ok(digit) => rest.text(digit),
            Err(_) => rest,
        }
    }

    /// With "`order.placed` version 2".
    pub(crate) const fn stored(self, (name, version): (&str, u32)) -> Self {
        self.text("`").text(name).text("` version ").number(version)
    }

    pub(crate) const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "a list of steps is wrong",
        }
    }
}
