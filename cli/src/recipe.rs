//! The worked systems of the folder `recipes/`, as part of the binary, so that `sluice demo` works anywhere.

use crate::exit::Usage;

/// A worked system.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The folder's name.
    pub(crate) name: &'static str,
    /// Its configuration.
    pub(crate) config: &'static str,
    /// The application's tables.
    pub(crate) tables: &'static str,
    /// Sample rows, some wrong on purpose.
    pub(crate) rows: &'static str,
    /// What the simulated Zoho has beyond its standard: a scenario in TOML.
    pub(crate) zoho: &'static str,
    /// An edit to try, for `psql`.
    pub(crate) edit: &'static str,
    /// Commands of this program to try.
    pub(crate) commands: &'static [&'static str],
}

macro_rules! recipe {
    ($name:literal, zoho: $zoho:expr, edit: $edit:literal, commands: $commands:expr) => {
        Recipe {
            name: $name,
            config: include_str!(concat!("../../recipes/", $name, "/sluice.toml")),
            tables: include_str!(concat!("../../recipes/", $name, "/tables.sql")),
            rows: include_str!(concat!("../../recipes/", $name, "/rows.sql")),
            zoho: $zoho,
            edit: $edit,
            commands: $commands,
        }
    };
}

/// All of them; the first is what `sluice demo` shows unless told otherwise.
pub(crate) const RECIPES: &[Recipe] = &[
    recipe!(
        "billing",
        zoho: "",
        edit: "update customers set phone = '+27 21 555 9999' where id = 1001",
        commands: &["status", "explain customers 1001", "trigger customers --key 1001 --force", "reconcile customers"]
    ),
    recipe!(
        "inventory",
        zoho: include_str!("../../recipes/inventory/zoho.toml"),
        edit: "update products set price = 2.95, stock_quantity = 38 where sku = 'PC-7'",
        commands: &["status", "runs list", "trigger items", "reconcile items"]
    ),
    recipe!(
        "crm",
        zoho: include_str!("../../recipes/crm/zoho.toml"),
        edit: "update kyc_sessions set status = 'completed' where contract_id = 701",
        commands: &["status", "events list", "explain contracts 701", "trigger contracts --key 701 --force", "reconcile contracts"]
    ),
];

/// The recipe of that name.
///
/// # Errors
/// [`Usage`], naming those there are.
pub(crate) fn find(name: Option<&str>) -> Result<&'static Recipe, Usage> {
    let Some(name) = name else { return Ok(&RECIPES[0]) };
    RECIPES.iter().find(|recipe| recipe.name == name).ok_or_else(|| {
        let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
        Usage(format!("there is no recipe `{name}`; there is {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    #[test]
    fn every_command_that_a_demo_shows_is_one() {
        for command in RECIPES.iter().flat_map(|recipe| recipe.commands) {
            let parsed = Args::try_parse_from(["sluice"].into_iter().chain(command.split(' ')));
            assert!(parsed.is_ok(), "{command}: {parsed:?}");
        }
    }
}
