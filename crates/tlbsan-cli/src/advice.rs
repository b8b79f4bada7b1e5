//! What to do about a violation, by its cause.

use tlbsan::report::{Attempt, Violation};
use tlbsan_hint::{Cause, Kind};

use crate::paint::span;
use crate::story::{operation, pes};

/// One sentence or two.
pub(crate) fn advice(v: &Violation) -> String {
    // The attempt that failed for the very cause of the violation is the one to mend.
    let tried = v.attempts.iter().rev().find(|attempt| attempt.cause == v.cause);
    let op = tried.map_or_else(|| "the TLBI".to_owned(), |attempt| mnemonic(&attempt.op));
    let span = span(v.start, v.size);
    let before = deadline(v);
    match v.cause {
        Cause::NoInvalidation => {
            let op = if v.table { "TLBI VAE1IS (Depth::Full)" } else { "TLBI VALE1IS" };
            format!("after the store that removes it and {before}: DSB ISHST, {op} for {span}, DSB ISH")
        }
        Cause::LeafOnly => {
            let full = tried.map(|attempt| mnemonic(&attempt.op)).map(|op| op.replacen("LE1", "E1", 1));
            let full = full.filter(|full| *full != op).unwrap_or_else(|| "TLBI VAE1IS".to_owned());
            if v.table {
                format!(
                    "issue {full} instead of {op} whenever tables are freed or replaced (Depth::Full): leaf forms \
                     keep walk caches"
                )
            } else {
                format!(
                    "issue {full} instead of {op} (Depth::Full): the page can be filled again through a table entry \
                     that leaf forms keep"
                )
            }
        }
        Cause::LocalOnly => {
            let broadcast = match tried {
                Some(_) => match op.strip_suffix("NXS") {
                    Some(op) => format!("{op}ISNXS"),
                    None => format!("{op}IS"),
                },
                None => "the IS form".to_owned(),
            };
            format!("issue {broadcast} and complete it with DSB ISH, or issue {op} on {} too {before}", pes(&v.pes))
        }
        Cause::WrongRange => {
            format!("cover all of {span}: one TLBI for each entry in it, or a range operation that reaches its end")
        }
        Cause::WrongAsid => match v.asids.as_slice() {
            [] => "invalidate for all ASIDs: VAAE1IS, or VMALLE1IS".to_owned(),
            asids => {
                let asids: Vec<String> = asids.iter().map(u16::to_string).collect();
                format!(
                    "name ASID {}, under which it was filled, or invalidate for all ASIDs (VAAE1IS)",
                    asids.join(", ")
                )
            }
        },
        Cause::GlobalSurvives => {
            format!("{op} leaves entries without nG: invalidate {span} with VAAE1IS, or everything with VMALLE1IS")
        }
        Cause::WrongTtl => {
            format!(
                "give the TTL of level {}, where the leaf is, or none (TTL 0): none is right whenever tables are freed",
                v.level
            )
        }
        Cause::NotBrokenFirst => format!(
            "break before make: store an invalid entry, DSB ISHST, TLBI {} for {span}, DSB ISH, and only then the new entry",
            if v.table { "VAE1IS" } else { "VALE1IS" }
        ),
        Cause::NotOrdered => {
            let (dsb, hint) = if local(tried) { ("DSB NSHST", " (ISHST does as well)") } else { ("DSB ISHST", "") };
            format!(
                "put {dsb}{hint} between the store that removes the entry and {op}: a walk may still read the old value after it"
            )
        }
        Cause::NotCompleted => {
            let pe =
                tried.map_or_else(|| "the PE that issued it".to_owned(), |attempt| format!("PE {}", attempt.site.pe));
            let dsb = if local(tried) { "DSB NSH" } else { "DSB ISH" };
            format!(
                "{dsb} on {pe} after {op}, {before}: only the PE that issued a TLBI can wait for it, and ISHST does not wait"
            )
        }
        Cause::NotSynchronised => {
            "ISB after the DSB that completes the TLBI, before this PE uses the address again: without FEAT_ETS2 its own \
             accesses are ordered by a context synchronisation event only, and instruction fetches always are"
                .to_owned()
        }
    }
}

/// The moment before which the invalidation must be complete.
fn deadline(v: &Violation) -> &'static str {
    match v.kind {
        Kind::Remade | Kind::LiveChange => "before the new entry is written",
        Kind::Reused => "before the page is used again",
        Kind::Claimed => "before it is declared clean",
        Kind::StaleAccess => "before the address is used",
        Kind::Asid => "before the identifier is used for other tables",
    }
}

/// `TLBI VALE1IS`, without its operand.
fn mnemonic(op: &str) -> String {
    let op = operation(op);
    op.split(',').next().unwrap_or_default().trim().to_owned()
}

/// Whether the operation reaches the issuing PE only.
fn local(tried: Option<&Attempt>) -> bool {
    tried.is_some_and(|attempt| {
        let op = mnemonic(&attempt.op);
        let op = op.trim_end_matches("NXS");
        !op.ends_with("IS") && !op.ends_with("OS")
    })
}
