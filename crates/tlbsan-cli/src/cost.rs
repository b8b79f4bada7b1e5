//! `--cost`: what the invalidations of each call site were spent on, as a table.

use tlbsan::report::Cost;

use crate::paint::{Paint, count};
use crate::stack::{Telling, lines};
use crate::story::operation;

/// Call sites shown; the rest is one line.
const SHOWN: usize = 20;
/// Callers shown of each.
const CALLERS: usize = 3;

/// The columns, as they are headed and explained.
pub(crate) const COLUMNS: [(&str, &str); 4] = [
    ("in vain", "named nothing stale"),
    ("broadcast", "only the issuing PE may have held it"),
    ("all levels", "only leaves were stale"),
    ("one by one", "range operations would have spared them"),
];

pub(crate) fn waste(cost: &Cost) -> [u64; 4] {
    [cost.in_vain, cost.broadcast, cost.all_levels, cost.one_by_one]
}

/// The profile, line by line; nothing where nothing was invalidated.
pub(crate) fn profile(costs: &[Cost], telling: Telling<'_>, paint: Paint) -> Vec<String> {
    let total: u64 = costs.iter().map(|cost| cost.tlbis).sum();
    if total == 0 {
        return Vec::new();
    }
    let spent = costs.iter().fold([0; 4], |sum, cost| {
        let waste = waste(cost);
        [sum[0] + waste[0], sum[1] + waste[1], sum[2] + waste[2], sum[3] + waste[3]]
    });
    let sites = count(costs.len() as u64, "call site", "call sites");
    let mut table = vec![paint.bold(&format!("cost of {} from {sites}", count(total, "TLBI", "TLBIs")))];
    for ((name, what), sum) in COLUMNS.iter().zip(spent) {
        table.push(format!("  {name:<10} {sum:>8}  {}", paint.dim(what)));
    }
    let wasteful: Vec<&Cost> = costs.iter().filter(|cost| waste(cost) != [0; 4]).collect();
    if wasteful.is_empty() {
        return table;
    }
    let heads: Vec<String> = COLUMNS.iter().map(|(name, _)| format!("{name:>10}")).collect();
    table.push(paint.dim(&format!("  {:>8} {}", "TLBIs", heads.join(" "))));
    // Call sites that differ only further out than is shown are one line.
    let mut rows: Vec<(Vec<String>, Cost)> = Vec::new();
    for cost in wasteful {
        let place = place(cost, telling);
        match rows.iter_mut().find(|(other, row)| *other == place && row.op == cost.op) {
            Some((_, row)) => {
                row.tlbis += cost.tlbis;
                row.in_vain += cost.in_vain;
                row.broadcast += cost.broadcast;
                row.all_levels += cost.all_levels;
                row.one_by_one += cost.one_by_one;
            }
            None => rows.push((place, cost.clone())),
        }
    }
    rows.sort_by_key(|(_, row)| std::cmp::Reverse(waste(row).iter().sum::<u64>()));
    for (place, row) in rows.iter().take(SHOWN) {
        let columns: Vec<String> = waste(row).iter().map(|n| format!("{:>10}", dash(*n))).collect();
        table.push(format!("  {:>8} {}  {}", row.tlbis, columns.join(" "), operation(&row.op)));
        table.extend(place.iter().map(|frame| format!("  {:>52}  {frame}", "")));
    }
    if rows.len() > SHOWN {
        let more = count((rows.len() - SHOWN) as u64, "more call site", "more call sites");
        table.push(paint.dim(&format!("  and {more}; `--json` and `--html` have them all")));
    }
    table
}

/// Where it is, innermost first.
pub(crate) fn place(cost: &Cost, telling: Telling<'_>) -> Vec<String> {
    if cost.site.pc == 0 && cost.site.stack.is_empty() {
        return vec!["elsewhere".to_owned()];
    }
    lines(&cost.site, telling).into_iter().take(CALLERS).collect()
}

fn dash(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { n.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::tests::{Kernel, site};

    #[test]
    fn the_profile_is_a_table_of_call_sites() {
        let cost = |pc, stack: &[u64], tlbis, [in_vain, broadcast, all_levels, one_by_one]: [u64; 4]| Cost {
            site: site(0, pc, stack),
            op: "tlbi vae1is".to_owned(),
            tlbis,
            in_vain,
            broadcast,
            all_levels,
            one_by_one,
        };
        // The second differs from the first further out than is shown.
        let (near, far) = ([0x1000, 0x1100], [0x1000, 0x1100, 0x9999]);
        let costs =
            [cost(0x200, &near, 90, [12, 38, 0, 80]), cost(0x200, &far, 6, [0, 2, 0, 4]), cost(0x100, &[], 4, [0; 4])];
        let telling = Telling { names: &Kernel, full_stacks: false };
        let text = profile(&costs, telling, Paint::PLAIN).join("\n");
        assert_eq!(
            text,
            "\
cost of 100 TLBIs from 3 call sites
  in vain          12  named nothing stale
  broadcast        40  only the issuing PE may have held it
  all levels        0  only leaves were stale
  one by one       84  range operations would have spared them
     TLBIs    in vain  broadcast all levels one by one
        96         12         40          -         84  TLBI VAE1IS
                                                        tlbi::flush::Tlb::invalidate at crates/tlbi/src/flush.rs:88
                                                        walk_cache::t1 at firmware/src/scenarios/walk_cache.rs:70
                                                        walk_cache::t2 at firmware/src/scenarios/walk_cache.rs:95"
        );
        assert!(profile(&[], telling, Paint::PLAIN).is_empty());
    }
}
