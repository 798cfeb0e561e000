//! The paths of one host.

use crate::compact::{Few, Text};
use crate::condition::Conditions;
use crate::path::PathRule;
#[cfg(feature = "regex")]
use crate::pattern;
use crate::table::RouteQuery;

/// The paths of one host, as an index that is searched without a scan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    /// Sorted by text.
    prefixes: Few<Prefix>,
    /// Sorted by text.
    exact: Vec<Exact>,
    #[cfg(feature = "regex")]
    regexes: Vec<(regex::Regex, Candidates)>,
}

/// Most prefixes are short, `/` above all.
type PrefixText = Text<22>;

#[derive(Clone, Debug)]
struct Exact {
    text: Box<str>,
    candidates: Candidates,
}

#[derive(Clone, Debug)]
struct Prefix {
    text: PrefixText,
    /// The longest other entry that is a prefix of this one.
    parent: Option<usize>,
    candidates: Candidates,
}

/// Routes of one host and path, in order of precedence.
#[derive(Clone, Debug, Default)]
struct Candidates(Few<Candidate>);

/// The conditions of a route, and its index in the table.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) conditions: Conditions,
    pub(crate) route: usize,
    /// The path matches as a prefix of elements, not of text.
    pub(crate) by_element: bool,
}

impl Paths {
    /// Adds a route; [`finish`](Self::finish) before the first search.
    pub(crate) fn add(
        &mut self,
        rule: &PathRule,
        mut candidate: Candidate,
    ) -> Result<(), mesh_ingress_core::ParseError> {
        match rule {
            PathRule::Exact(text) => {
                let at = self.exact.binary_search_by(|entry| entry.text.cmp(text));
                let at = at.unwrap_or_else(|at| {
                    let entry = Exact {
                        text: text.clone(),
                        candidates: Candidates::default(),
                    };
                    self.exact.insert(at, entry);
                    at
                });
                if let Some(entry) = self.exact.get_mut(at) {
                    entry.candidates.0.push(candidate);
                }
            }
            PathRule::Prefix(text) => {
                candidate.by_element = true;
                if let Some(entry) = self.prefix_entry(text) {
                    entry.candidates.0.push(candidate);
                }
            }
            PathRule::StringPrefix(text) => {
                if let Some(entry) = self.prefix_entry(text) {
                    entry.candidates.0.push(candidate);
                }
            }
            #[cfg(feature = "regex")]
            PathRule::Regex(pattern) => {
                let regex = pattern::of_path(pattern)?;
                let same = |(known, _): &&mut (regex::Regex, _)| known.as_str() == regex.as_str();
                match self.regexes.iter_mut().find(same) {
                    Some((_, candidates)) => candidates.0.push(candidate),
                    None => self.regexes.push((regex, Candidates(Few::One(candidate)))),
                }
            }
        }
        Ok(())
    }

    fn prefix_entry(&mut self, text: &str) -> Option<&mut Prefix> {
        let at = self
            .prefixes
            .binary_search_by(|entry| (*entry.text).cmp(text.as_bytes()));
        let at = at.unwrap_or_else(|at| {
            let entry = Prefix {
                text: Text::new(text.as_bytes()),
                parent: None,
                candidates: Candidates::default(),
            };
            self.prefixes.insert(at, entry);
            at
        });
        self.prefixes.get_mut(at)
    }

    /// Sorts candidates and links prefixes.
    pub(crate) fn finish(&mut self) {
        for entry in &mut self.exact {
            entry.candidates.sort();
        }
        #[cfg(feature = "regex")]
        for (_, candidates) in &mut self.regexes {
            candidates.sort();
        }
        // In a sorted list the prefixes of an entry are those on the stack when it is reached.
        let mut open: Vec<(usize, PrefixText)> = Vec::new();
        for (at, entry) in self.prefixes.iter_mut().enumerate() {
            entry.candidates.sort();
            while open
                .last()
                .is_some_and(|(_, text)| !entry.text.starts_with(text))
            {
                open.pop();
            }
            entry.parent = open.last().map(|(at, _)| *at);
            open.push((at, entry.text.clone()));
        }
    }

    /// The index of the first matching route.
    pub(crate) fn find(&self, request: &RouteQuery<'_>) -> Option<usize> {
        self.find_exact(request)
            .or_else(|| self.find_prefix(request))
            .or_else(|| self.find_regex(request))
    }

    fn find_exact(&self, request: &RouteQuery<'_>) -> Option<usize> {
        let at = self
            .exact
            .binary_search_by(|entry| (*entry.text).cmp(request.path))
            .ok()?;
        self.exact.get(at)?.candidates.find(request, false)
    }

    /// An entry that is a prefix of the path sorts at or before it, and every text between the two
    /// begins with that entry. So all matching entries are on the parent chain of the last entry that
    /// does not sort after the path.
    fn find_prefix(&self, request: &RouteQuery<'_>) -> Option<usize> {
        let path = request.path.as_bytes();
        let after = self.prefixes.partition_point(|entry| *entry.text <= *path);
        let mut at = after.checked_sub(1)?;
        let shared = self
            .prefixes
            .get(at)
            .map(|last| common_prefix(&last.text, path))?;
        loop {
            let entry = self.prefixes.get(at)?;
            let len = entry.text.len();
            if len <= shared {
                let whole_elements = matches!(path.get(len), None | Some(b'/'));
                let found = entry.candidates.find(request, whole_elements);
                if found.is_some() {
                    return found;
                }
            }
            at = entry.parent?;
        }
    }

    #[cfg(feature = "regex")]
    fn find_regex(&self, request: &RouteQuery<'_>) -> Option<usize> {
        self.regexes
            .iter()
            .filter(|(regex, _)| regex.is_match(request.path))
            .find_map(|(_, candidates)| candidates.find(request, false))
    }

    #[cfg(not(feature = "regex"))]
    #[allow(clippy::unused_self)]
    fn find_regex(&self, _: &RouteQuery<'_>) -> Option<usize> {
        None
    }
}

impl Candidates {
    /// Element prefixes first. Stable: routes of equal rank keep the given order.
    fn sort(&mut self) {
        self.0
            .sort_by_key(|candidate| (!candidate.by_element, candidate.conditions.rank()));
    }

    /// `whole_elements` tells whether the rest of the path begins a new element, or is empty.
    fn find(&self, request: &RouteQuery<'_>, whole_elements: bool) -> Option<usize> {
        self.0
            .iter()
            .filter(|candidate| whole_elements || !candidate.by_element)
            .find(|candidate| candidate.conditions.match_request(request))
            .map(|candidate| candidate.route)
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
