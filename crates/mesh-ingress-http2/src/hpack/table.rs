//! The static and the dynamic table (RFC 7541 §2.3).

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use super::field::{Field, Name};

/// The overhead of an entry in bytes (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

/// The static table (RFC 7541 Appendix A).
#[rustfmt::skip]
const STATIC_FIELDS: [(&str, &str); 61] = [
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
    let entries = STATIC_FIELDS.iter().map(|(name, value)| {
        let value = Bytes::from_static(value.as_bytes());
        Entry::new(Name::of(name.as_bytes()), value)
    });
    entries.collect()
});

/// The first index of a name in the static table.
pub(super) fn static_index(name: &str) -> Option<usize> {
    static INDEX_BY_LENGTH: LazyLock<[Vec<usize>; 32]> = LazyLock::new(|| {
        let mut by_length = [const { Vec::new() }; 32];
        for (place, (name, _)) in STATIC_FIELDS.iter().enumerate() {
            let same: &mut Vec<usize> = &mut by_length[name.len()];
            if !same.iter().any(|&other| STATIC_FIELDS[other].0 == *name) {
                same.push(place);
            }
        }
        by_length
    });
    let same = INDEX_BY_LENGTH.get(name.len())?;
    let place = same.iter().find(|&&place| STATIC_FIELDS[place].0 == name);
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

/// The dynamic table, the newest entry first.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    size: usize,
    /// The size that the peer has chosen.
    max_size: usize,
    /// The size that the peer may choose at most.
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
        match place.checked_sub(STATIC_FIELDS.len()) {
            None => STATIC.get(place),
            Some(place) => self.entries.get(place),
        }
    }

    /// RFC 7541 §4.4
    pub(super) fn insert(&mut self, entry: Entry) {
        let Some(room) = self.max_size.checked_sub(entry.size) else {
            self.evict_to(0);
            return;
        };
        self.evict_to(room);
        self.size += entry.size;
        self.entries.push_front(entry);
    }

    /// RFC 7541 §4.3; `false` if that exceeds the limit.
    pub(super) fn resize(&mut self, max_size: usize) -> bool {
        if max_size > self.limit {
            return false;
        }
        self.max_size = max_size;
        self.evict_to(max_size);
        true
    }

    fn evict_to(&mut self, room: usize) {
        while self.size > room
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size;
        }
    }
}
