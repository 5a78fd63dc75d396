//! The field names of the customer list, and the response keys they select.

/// One of the vendor's field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(u8);

/// (field name in a request, member name in an answer), as the vendor documents them.
const NAMES: [(&str, &str); 11] = [
    ("id", "customer_id"),
    ("name", "customer_name"),
    ("users_number", "users_number"),
    ("active_workflows", "active_workflows"),
    ("cost_impact", "cost_impact"),
    ("realized_savings", "realized_savings"),
    ("num_of_integrations", "num_of_integrations"),
    ("integration_types", "integration_types"),
    ("integrations", "integrations"),
    ("successful_runs", "successful_runs"),
    ("failed_runs", "failed_runs"),
];

/// A set of field names; order and repetition in the request do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldSet(u16);

impl FieldSet {
    /// All documented fields: what an absent `fields` parameter means.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Reads a comma-separated list. Returns `None` if a name is not one of the vendor's or the
    /// list is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits = 0;
        for name in text.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            let index = NAMES
                .iter()
                .position(|(field, _)| field.as_bytes() == name)?;
            bits |= 1 << index;
        }
        Some(Self(bits))
    }

    /// Returns whether a member of an answer belongs to the set. Undocumented members belong to the
    /// full set only.
    pub fn selects(self, member: &str) -> bool {
        match NAMES.iter().position(|(_, key)| *key == member) {
            Some(index) => self.0 & (1 << index) != 0,
            None => self == Self::ALL,
        }
    }

    /// Returns whether everything is selected.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Returns the field names a request may use.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(field, _)| *field)
    }

    /// Returns a short stable number that identifies the set in a cache key.
    pub fn bits(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repetition_do_not_matter() {
        assert_eq!(FieldSet::parse("id,name"), FieldSet::parse("name,id,id"));
        assert_eq!(FieldSet::parse(" id , name"), FieldSet::parse("id,name"));
        assert_ne!(FieldSet::parse("id"), FieldSet::parse("name"));
        let all = FieldSet::names().collect::<Vec<_>>().join(",");
        assert_eq!(FieldSet::parse(&all), Some(FieldSet::ALL));
    }

    #[test]
    fn unknown_and_empty_names_are_refused() {
        for bad in ["", "id,", "customer_id", "ID", "id;name", "id,nope"] {
            assert_eq!(FieldSet::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_map_to_members() {
        let set = FieldSet::parse("id").unwrap();
        assert!(set.selects("customer_id") && !set.selects("customer_name"));
        assert!(!set.selects("undocumented") && FieldSet::ALL.selects("undocumented"));
    }
}
