//! Members of a search's body that look like a documented one.
//!
//! Members that wiv does not document are part of a search and go to it as they are: they may be
//! filters. But `dateRange` filters nothing, although its author believes that it does.

/// The documented members: their names, and these names in the form in which they are compared.
const DOCUMENTED: [(&str, &str); 3] = [
    ("date_range", "daterange"),
    ("max_returned_items", "maxreturneditems"),
    ("start_page_key", "startpagekey"),
];

/// Number of letters that may be wrong, missing, additional or swapped. Two are a slip, and the
/// documented names differ from each other by more.
const SLIPS_MAX: usize = 2;
/// A longer name looks like none of them.
const NAME_BYTES_MAX: usize = 32;

/// A member that looks like a documented one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMember {
    /// The name as it was sent, without characters other than letters, digits, `_` and `-`.
    pub member: String,
    /// The documented one.
    pub meant: &'static str,
}

impl NearMember {
    /// Returns the first of these undocumented names that looks like a documented one.
    pub fn among<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().find_map(|name| {
            let meant = meant_by(name)?;
            let plain = |c: char| match c {
                _ if c.is_ascii_alphanumeric() => c,
                '_' | '-' => c,
                _ => '?',
            };
            Some(Self {
                member: name.chars().map(plain).collect(),
                meant,
            })
        })
    }

    /// Returns the hint for the caller.
    pub fn hint(&self) -> String {
        format!(
            "{} is not a documented member and is passed to the vendor unchanged; did you mean {}?",
            self.member, self.meant
        )
    }
}

fn meant_by(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let letters = name.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.'));
    let folded: Vec<char> = letters.map(|c| c.to_ascii_lowercase()).collect();
    let near = |(_, plain): &&(&str, &str)| {
        // Each letter by which one name is longer than the other is a slip.
        if plain.len().abs_diff(folded.len()) > SLIPS_MAX {
            return false;
        }
        let plain: Vec<char> = plain.chars().collect();
        slips(&folded, &plain) <= SLIPS_MAX
    };
    DOCUMENTED.iter().find(near).map(|(written, _)| *written)
}

/// Returns how many letters are wrong, missing or additional, or swapped with their neighbour.
fn slips(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
    for (i, letter) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let same = usize::from(letter != wanted);
            let mut least = (at(&last, j) + same)
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0
                && j > 0
                && one.get(i - 1) == Some(wanted)
                && other.get(j - 1) == Some(letter);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    at(&last, other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_words_are_not() {
        for (name, meant) in [
            ("dateRange", Some("date_range")),
            ("DateRange", Some("date_range")),
            ("date-range", Some("date_range")),
            ("daterange", Some("date_range")),
            ("data_range", Some("date_range")),
            ("date_ragne", Some("date_range")),
            ("date_ranges", Some("date_range")),
            ("max_returned_item", Some("max_returned_items")),
            ("maxReturnedItems", Some("max_returned_items")),
            ("max_retured_items", Some("max_returned_items")),
            ("startPageKey", Some("start_page_key")),
            ("start_page_keys", Some("start_page_key")),
            ("start_pagekey ", Some("start_page_key")),
            ("", None),
            ("range", None),
            ("date", None),
            ("severity", None),
            ("status", None),
            ("limit", None),
            ("max_items", None),
            ("start_page", None),
            ("next_page_key", None),
            ("page_size", None),
            ("date_range_of_the_invoice", None),
            ("created_date_range", None),
        ] {
            assert_eq!(meant_by(name), meant, "{name}");
        }
        let long = "date_range".repeat(1_000);
        assert_eq!(meant_by(&long), None);
    }

    #[test]
    fn what_is_told_holds_no_character_of_another_kind() {
        let names = ["other", "date\"r\u{e4}nge"];
        let near = NearMember::among(names.into_iter()).unwrap();
        assert_eq!(
            (near.member.as_str(), near.meant),
            ("date?r?nge", "date_range")
        );
        assert!(near.hint().is_ascii());
        assert_eq!(NearMember::among(["other"].into_iter()), None);
    }
}
