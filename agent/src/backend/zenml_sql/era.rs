//! Which ZenML made the table: told from its columns, and the SQL that differs.

use super::super::{Scope, ScopeLabel};

/// The columns of a table: name, and whether it may not be NULL.
pub(super) type Columns = Vec<(String, bool)>;

/// The shapes the `secret` table has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// 0.35 to 0.53: `scope` inside a workspace; values never NULL.
    B,
    /// 0.55 to 0.75: the same, and values may be NULL because they lie in a cloud back-end.
    C,
    /// 0.80 and later: `private`; with `internal`, some secrets belong to service connectors and webhooks.
    D {
        /// Whether the column `internal` is there.
        internal: bool,
    },
}

impl Era {
    /// Tells the era from the columns of `secret`; `None` when they are none we know.
    pub(super) fn of(columns: &Columns) -> Option<Self> {
        let not_null = |wanted: &str| columns.iter().find(|(name, _)| name == wanted).map(|(_, not_null)| *not_null);
        let has = |wanted| not_null(wanted).is_some();
        let values_not_null = not_null("values")?;
        if !["id", "name", "created", "updated", "user_id"].into_iter().all(has) {
            None
        } else if has("private") {
            Some(Self::D { internal: has("internal") })
        } else if has("scope") && has("workspace_id") {
            Some(if values_not_null { Self::B } else { Self::C })
        } else {
            None
        }
    }

    /// Tells whether secrets lie inside workspaces.
    pub(super) fn has_workspaces(self) -> bool {
        matches!(self, Self::B | Self::C)
    }

    /// Tells whether (name, private, user) has an index, so that a look-up by name touches few pages.
    pub(super) fn has_name_index(self) -> bool {
        matches!(self, Self::D { .. })
    }

    /// Tells whether the table has the column `internal`.
    pub(super) fn has_internal(self) -> bool {
        matches!(self, Self::D { internal: true })
    }

    /// What this era calls `scope`.
    pub(super) fn label(self, scope: Scope) -> ScopeLabel {
        match (self, scope) {
            (Self::B | Self::C, Scope::Private) => ScopeLabel::User,
            (Self::B | Self::C, Scope::Public) => ScopeLabel::Workspace,
            (Self::D { .. }, Scope::Private) => ScopeLabel::Private,
            (Self::D { .. }, Scope::Public) => ScopeLabel::Public,
        }
    }

    /// SQL: whether a row is private (1) or public (0).
    pub(super) fn is_private(self) -> &'static str {
        match self {
            Self::B | Self::C => "scope = 'user'",
            Self::D { .. } => "private <> 0",
        }
    }

    /// SQL: whether a row is visible to user `?1` (NULL: nobody) in workspace `?2`.
    pub(super) fn is_visible(self) -> &'static str {
        match self {
            Self::B | Self::C => "workspace_id = ?2 AND (scope = 'workspace' OR (scope = 'user' AND user_id = ?1))",
            Self::D { internal: false } => "(private = 0 OR user_id = ?1)",
            Self::D { internal: true } => "internal = 0 AND (private = 0 OR user_id = ?1)",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_era_shows_in_the_columns() {
        let check = |columns: &str, expected| {
            let column = |text: &str| (text.trim_end_matches('!').to_owned(), text.ends_with('!'));
            assert_eq!(Era::of(&columns.split(' ').map(column).collect()), expected, "{columns}");
        };
        let base = "id! created! updated! name! user_id!";
        check(&format!("{base} values! scope! workspace_id!"), Some(Era::B));
        check(&format!("{base} values scope! workspace_id!"), Some(Era::C));
        check(&format!("{base} values private!"), Some(Era::D { internal: false }));
        check(&format!("{base} values private! internal! something_new"), Some(Era::D { internal: true }));
        check(&format!("{base} values"), None);
        check(&format!("{base} private!"), None);
        check("id! name! values private!", None);
    }
}
