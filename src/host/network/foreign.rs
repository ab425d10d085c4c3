//! Finds filters of others that drop what we redirect. Pure: reads what `nft -j list ruleset` printed.
//!
//! An accept in our own chain ends the look-up in iptables' base chain only; a second base chain at the same hook still
//! decides for itself. We do not edit foreign tables, we name the line to add.

use std::collections::BTreeSet;

use serde_json::Value;

/// Returns a text for each base chain of a foreign table that drops redirected packets by default.
///
/// Chains that accept by default and drop by a rule are not judged: such a rule is rarely about containers.
pub(super) fn drops(ruleset: &str) -> Vec<String> {
    let Ok(ruleset) = serde_json::from_str::<Value>(ruleset) else { return Vec::new() };
    let items = ruleset["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lets_through: BTreeSet<[&str; 3]> =
        items.iter().map(|item| &item["rule"]).filter(|rule| accepts_dnat(rule)).filter_map(place).collect();
    let chains = items.iter().map(|item| &item["chain"]).filter(|chain| drops_input(chain));
    let dropping = chains.filter_map(|chain| {
        let family = chain["family"].as_str()?;
        Some([family, chain["table"].as_str()?, chain["name"].as_str()?])
    });
    dropping
        .filter(|chain| !of_iptables(*chain) && !lets_through.contains(chain))
        .map(|[family, table, chain]| {
            format!(
                "table `{family} {table}` drops in chain `{chain}` what containers send to services and to DNS; let it \
                 through with `nft insert rule {family} {table} {chain} ct status dnat accept`, and make that permanent"
            )
        })
        .collect()
}

fn drops_input(chain: &Value) -> bool {
    let ipv4 = matches!(chain["family"].as_str(), Some("ip" | "inet"));
    ipv4 && chain["hook"] == "input" && chain["policy"] == "drop"
}

/// Says whether `iptables` made the chain: our own accept is in it.
fn of_iptables(chain: [&str; 3]) -> bool {
    chain == ["ip", "filter", "INPUT"]
}

fn place(rule: &Value) -> Option<[&str; 3]> {
    Some([rule["family"].as_str()?, rule["table"].as_str()?, rule["chain"].as_str()?])
}

fn accepts_dnat(rule: &Value) -> bool {
    let steps = rule["expr"].as_array().map(Vec::as_slice).unwrap_or_default();
    let dnat = |step: &Value| {
        let found = &step["match"];
        let right = &found["right"];
        found["left"]["ct"]["key"] == "status"
            && (right == "dnat" || right.as_array().is_some_and(|all| all.iter().any(|one| one == "dnat")))
    };
    steps.iter().any(dnat) && steps.iter().any(|step| step.get("accept").is_some())
}
