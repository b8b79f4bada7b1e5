//! Why a residue is still open, from the invalidations that did not suffice. Words are made here, when a story is told.

use super::{Residue, Residues, Tag};
use crate::effect::{Effect, Selection};
use crate::machine::{PeSet, pes};
use crate::report::{Attempt, Site};
use std::sync::Arc;
use tlbi::{Op, Scope};
use tlbsan_hint::Cause;

/// Attempts kept with each residue; later ones are counted.
const MAX_ATTEMPTS: usize = 6;
/// TLBIs remembered to explain that the wrong thing was invalidated.
pub(super) const LOG: usize = 64;

/// A TLBI that was not enough.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    site: Arc<Site>,
    op: Op,
    cause: Cause,
    /// PEs that it left the entry on.
    left: PeSet,
    refillable: bool,
}

impl Noted {
    pub(super) fn new(site: &Arc<Site>, op: Op, cause: Cause, left: PeSet, refillable: bool) -> Self {
        Self { site: Arc::clone(site), op, cause, left, refillable }
    }
}

/// A TLBI that concerned no residue.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) time: u64,
    pub(super) effect: Effect,
    pub(super) site: Arc<Site>,
}

impl Residue {
    pub(super) fn note(&mut self, noted: Noted) {
        let known =
            self.attempts.iter().any(|other| other.cause == noted.cause && other.op.mnemonic() == noted.op.mnemonic());
        if known || self.attempts.len() >= MAX_ATTEMPTS {
            self.more_attempts += 1;
        } else {
            self.attempts.push(noted);
        }
    }

    fn reason(&self, noted: &Noted) -> String {
        let level = self.what.level;
        let left = list_pes(noted.left);
        match noted.cause {
            Cause::LeafOnly if noted.refillable => "it removes leaves only, and the leaf can be refilled through the \
                 table entry above it, which is still in a walk cache"
                .to_owned(),
            Cause::LeafOnly => {
                format!("it removes leaves only; the level-{level} table entry stays in the walk cache of {left}")
            }
            Cause::LocalOnly => format!("it reaches PE {} only; {left} may keep the entry", noted.site.pe),
            Cause::GlobalSurvives => "an operation by ASID leaves global entries".to_owned(),
            Cause::WrongTtl => format!("its TTL or TG goes with other tables; the entry is at level {level}"),
            Cause::NotOrdered => format!(
                "no DSB {}st stands between the store and it: a walker may have read the old entry again afterwards",
                option(noted.op.scope)
            ),
            Cause::NotBrokenFirst => "another entry of the contiguous run still stands for the old translation: clear \
                 all of them first"
                .to_owned(),
            Cause::NotCompleted => "no DSB had completed the invalidation by IPA before it, so that stage 2 could be \
                 combined again"
                .to_owned(),
            Cause::WrongRange => "it names other addresses".to_owned(),
            Cause::WrongAsid => "it names another ASID".to_owned(),
            _ => String::new(),
        }
    }
}

impl Residues {
    /// The cause, with the invalidations that did not suffice and how many more there were.
    pub fn explain(&self, residue: &Residue) -> (Cause, Vec<Attempt>, u64) {
        let mut attempts: Vec<Attempt> = residue
            .attempts
            .iter()
            .map(|noted| attempt(&noted.site, &noted.op, noted.cause, residue.reason(noted)))
            .collect();
        for holder in &residue.holders {
            for tlbi in holder.in_flight.iter().take(MAX_ATTEMPTS) {
                let nxs = if tlbi.op.nxs { " or its nXS form" } else { "" };
                let why = format!(
                    "no DSB {}{nxs} by PE {} has completed it since: a PE may still be using the old entry",
                    option(tlbi.op.scope),
                    tlbi.issuer
                );
                attempts.push(attempt(&tlbi.site, &tlbi.op, Cause::NotCompleted, why));
            }
        }
        // What a VMALLE1 left combined was left for want of the operation by IPA before it: why that fell short is the cause, if it
        // did.
        let in_flight = residue.holders.iter().any(|holder| !holder.in_flight.is_empty());
        let left_combined = |cause: Cause| cause == Cause::NotCompleted && !in_flight;
        let by_ipa = residue.holders.iter().any(|holder| holder.tag == Tag::Ipa);
        if by_ipa && attempts.iter().all(|attempt| left_combined(attempt.cause)) || attempts.is_empty() {
            attempts.extend(self.missed(residue));
        }
        let rank = |cause: &Cause| match *cause {
            cause if !left_combined(cause) => 1 + closeness(cause),
            _ => u8::from(!by_ipa),
        };
        let causes = [Cause::NoInvalidation].into_iter().chain(attempts.iter().map(|attempt| attempt.cause));
        let cause = causes.max_by_key(rank).unwrap_or(Cause::NoInvalidation);
        (cause, attempts, residue.more_attempts)
    }

    /// TLBIs since by the same PE that removed nothing: the wrong address, or the wrong ASID, for this residue?
    fn missed(&self, residue: &Residue) -> Vec<Attempt> {
        let since = |tlbi: &&Logged| {
            tlbi.time > residue.filled && residue.writer.is_none_or(|writer| writer == tlbi.effect.issuer)
        };
        let missed = self.log.iter().filter(since).filter_map(|tlbi| {
            let (cause, why) = match tlbi.effect.selection {
                Selection::Asid(space, _) if space == residue.what.space && residue.what.entry.is_global() => {
                    (Cause::GlobalSurvives, "an operation by ASID leaves global entries")
                }
                Selection::Asid(space, asid) if space == residue.what.space && !residue.concerns(asid) => {
                    (Cause::WrongAsid, "it names another ASID")
                }
                Selection::Addresses { space, asid, first, size, .. } if space == residue.what.space => {
                    match (asid.is_none_or(|asid| residue.concerns(asid)), residue.overlaps(first, size)) {
                        (true, false) => (Cause::WrongRange, "it names other addresses"),
                        (false, true) => (Cause::WrongAsid, "it names another ASID"),
                        _ => return None,
                    }
                }
                _ => return None,
            };
            Some(attempt(&tlbi.site, &tlbi.effect.op, cause, why.to_owned()))
        });
        missed.take(MAX_ATTEMPTS).collect()
    }
}

fn attempt(site: &Arc<Site>, op: &Op, cause: Cause, why: String) -> Attempt {
    Attempt { site: (**site).clone(), op: op.to_string(), why, cause }
}

/// How near an insufficient invalidation came: the nearest one names the cause.
fn closeness(cause: Cause) -> u8 {
    match cause {
        Cause::NotSynchronised => 10,
        Cause::NotCompleted => 9,
        Cause::NotBrokenFirst => 8,
        Cause::NotOrdered => 7,
        Cause::LocalOnly => 6,
        Cause::LeafOnly => 5,
        Cause::WrongTtl => 4,
        Cause::GlobalSurvives => 3,
        Cause::WrongAsid => 2,
        Cause::WrongRange => 1,
        Cause::NoInvalidation => 0,
    }
}

fn option(scope: Scope) -> &'static str {
    match scope {
        Scope::Local => "nsh",
        Scope::Inner => "ish",
        Scope::Outer => "osh",
    }
}

fn list_pes(set: PeSet) -> String {
    let names: Vec<String> = pes(set).map(|pe| pe.to_string()).collect();
    format!("PE {}", names.join(", "))
}
