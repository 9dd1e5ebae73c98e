//! Where in a JSON text something is wrong, as people write it: `payload.lines[2].price`.

/// The longest key, in characters, that an error shows in full.
const SHOWN_KEY: usize = 60;

/// An array or object that is open at the end of a text.
enum Open<'t> {
    /// With the key of the current or next value, if there is one yet.
    Object(Option<&'t str>),
    /// With the number of elements before the present one.
    Array(usize),
}

/// The path of the value that begins, or is still open, at the end of `prefix`, which is the beginning of a JSON text.
///
/// It is computed only after an error, so valid text costs nothing.
pub(super) fn path_at(prefix: &str) -> String {
    let bytes = prefix.as_bytes();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::Array(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let end = string_end(bytes, at);
                if let Some(Open::Object(key @ None)) = open.last_mut() {
                    *key = prefix.get(at..end);
                }
                at = end + 1;
            }
            _ => {}
        }
    }
    let mut path = "payload".to_owned();
    for open in open {
        match open {
            Open::Object(Some(key)) => push_key(&mut path, key),
            Open::Object(None) => {}
            Open::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Where the string that begins at `at` ends: at its closing quote, or with the text.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Adds a key to a path: bare if it looks like a field, else in brackets, and shortened if it is very long.
pub(super) fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let shown: String = key.chars().take(SHOWN_KEY).collect();
    let more = if shown.len() < key.len() { ".." } else { "" };
    if plain {
        path.push('.');
        path.push_str(&shown);
        path.push_str(more);
    } else {
        path.push_str(&format!("[{:?}]", format!("{shown}{more}")));
    }
}
