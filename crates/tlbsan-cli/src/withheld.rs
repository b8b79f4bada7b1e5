//! `--blind` and `--weaken`: what is withheld from the model, as a test of its sight, and what it found missing.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use tlbsan::Blind;
use tlbsan::report::Record;

use crate::paint::count;

/// Takes `tlbi:100` or `dsb:100` for `--blind`: one in a hundred.
pub(crate) fn parse(blind: &mut Blind, text: &str) -> Result<(), String> {
    let one_in = |many: &str| many.parse().ok().filter(|many| *many > 0);
    match text.split_once(':').map(|(what, many)| (what, one_in(many))) {
        Some(("tlbi", Some(many))) => blind.tlbi = many,
        Some(("dsb", Some(many))) => blind.dsb = many,
        _ => return Err(format!("--blind takes tlbi:N or dsb:N, for one in N, not {text}")),
    }
    Ok(())
}

/// A seed that nobody chose.
pub(crate) fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}

/// The plugin's arguments.
pub(crate) fn plugin_arguments(blind: &Blind) -> String {
    let Blind { tlbi, dsb, weaken, seed } = *blind;
    if is_on(blind) { format!(",blind-tlbi={tlbi},blind-dsb={dsb},weaken={weaken},seed={seed}") } else { String::new() }
}

fn is_on(blind: &Blind) -> bool {
    blind.tlbi != 0 || blind.dsb != 0 || blind.weaken != 0
}

/// What was withheld and what was found.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    blinded: BTreeSet<u64>,
    found: BTreeSet<u64>,
}

impl Withheld {
    /// Takes note of a record.
    pub(crate) fn record(&mut self, record: &Record) {
        match record {
            Record::Blinded(blinded) => _ = self.blinded.insert(blinded.event),
            Record::Found { event } => _ = self.found.insert(*event),
            _ => {}
        }
    }

    /// One line, if something was to be withheld.
    pub(crate) fn line(&self, blind: &Blind) -> Option<String> {
        let blinded = count(self.blinded.len() as u64, "instruction", "instructions");
        let text = format!("{blinded} withheld, {} found missing (--seed {})", self.found.len(), blind.seed);
        is_on(blind).then(|| format!("tlbsan: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlbsan::report::Blinded;

    #[test]
    fn one_in_so_many_is_understood() {
        let mut blind = Blind::default();
        parse(&mut blind, "tlbi:100").expect("right");
        parse(&mut blind, "dsb:7").expect("right");
        assert_eq!((blind.tlbi, blind.dsb), (100, 7));
        assert_eq!(plugin_arguments(&blind), ",blind-tlbi=100,blind-dsb=7,weaken=0,seed=0");
        assert_eq!(plugin_arguments(&Blind { seed: 3, ..Blind::default() }), "");
        for wrong in ["tlbi", "tlbi:", "tlbi:0", "tlbi:-1", "isb:3", ""] {
            assert!(parse(&mut blind, wrong).is_err_and(|e| e.contains("tlbi:N")), "{wrong}");
        }
    }

    #[test]
    fn each_is_counted_once() {
        let mut withheld = Withheld::default();
        for event in [3, 9] {
            let what = "dsb ish".to_owned();
            withheld.record(&Record::Blinded(Blinded { event, what, pe: 0, pc: 0 }));
            withheld.record(&Record::Found { event: 9 });
        }
        let blind = Blind { dsb: 5, seed: 1, ..Blind::default() };
        let line = "tlbsan: 2 instructions withheld, 1 found missing (--seed 1)";
        assert_eq!(withheld.line(&blind).as_deref(), Some(line));
        assert_eq!(withheld.line(&Blind::default()), None);
    }
}
