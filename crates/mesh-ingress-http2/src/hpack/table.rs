//! The tables that fields are found in by their number (RFC 7541 §2.3).

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use super::field::{Field, Name};

/// What the bookkeeping of an entry counts for (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

/// The fields everybody knows (RFC 7541 Appendix A).
#[rustfmt::skip]
const KNOWN: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

static STATIC: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let known = KNOWN.iter().map(|(name, value)| {
        let value = Bytes::from_static(value.as_bytes());
        Entry::new(Name::of(name.as_bytes()), value)
    });
    known.collect()
});

/// The first place of a name in the static table.
pub(super) fn place_of(name: &str) -> Option<usize> {
    static PLACES: LazyLock<[Vec<usize>; 32]> = LazyLock::new(|| {
        let mut places = [const { Vec::new() }; 32];
        for (place, (name, _)) in KNOWN.iter().enumerate() {
            let same: &mut Vec<usize> = &mut places[name.len()];
            if !same.iter().any(|&other| KNOWN[other].0 == *name) {
                same.push(place);
            }
        }
        places
    });
    let same = PLACES.get(name.len())?;
    let place = same.iter().find(|&&place| KNOWN[place].0 == name);
    place.map(|place| place + 1)
}

/// A field of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) field: Field,
    pub(super) size: usize,
}

impl Entry {
    pub(super) fn new(name: Name, value: Bytes) -> Self {
        let size = name.len() + value.len() + OVERHEAD;
        let field = name.with(value);
        Self { name, field, size }
    }
}

/// The fields a connection has had, the last one first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    /// What the other end may use of it now.
    max_size: usize,
    /// What it was told that it may use.
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: limit,
            limit,
        }
    }

    /// An entry of either table.
    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        let place = index.checked_sub(1)?;
        match place.checked_sub(KNOWN.len()) {
            None => STATIC.get(place),
            Some(place) => self.entries.get(place),
        }
    }

    /// RFC 7541 §4.4
    pub(super) fn insert(&mut self, entry: Entry) {
        let Some(room) = self.max_size.checked_sub(entry.size) else {
            self.shrink(0);
            return;
        };
        self.shrink(room);
        self.size += entry.size;
        self.entries.push_front(entry);
    }

    /// RFC 7541 §4.3; `false` if that is more than the other end may use.
    pub(super) fn resize(&mut self, max_size: usize) -> bool {
        if max_size > self.limit {
            return false;
        }
        self.max_size = max_size;
        self.shrink(max_size);
        true
    }

    fn shrink(&mut self, room: usize) {
        while self.size > room
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size;
        }
    }
}
