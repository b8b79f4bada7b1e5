//! The records that leave the model: violations with their story, the result of each case, the end.
//!
//! Addresses are numbers here; names and source lines are found by whoever has the symbols. The records are the lines of
//! the JSON stream between the checker and the command `tlbsan`.

use serde::{Deserialize, Serialize};
use tlbsan_hint::{Cause, Expected, Kind};

/// Version of the stream; a reader refuses another.
pub const STREAM_VERSION: u32 = 3;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// First.
    Start {
        /// [`STREAM_VERSION`].
        version: u32,
    },
    /// A rule was broken.
    Violation(Box<Violation>),
    /// Something that breaks no rule and could be better. It never fails a case, nor changes an exit code.
    Remark(Box<Remark>),
    /// Near the end, for a violation that happened again: the same rule and cause, from the same two places in the code.
    Repeats {
        /// [`Violation::number`].
        violation: u64,
        /// How many more there were.
        more: u64,
    },
    /// Near the end, if asked for: what the invalidations of one place in the code were spent on.
    Cost(Box<Cost>),
    /// A case has ended.
    Case(CaseResult),
    /// Something the reader should know that is no error: what is not modelled, for instance.
    Notice {
        /// One sentence.
        text: String,
    },
    /// Last of the model: without it the run was cut short.
    End(Summary),
    /// Last of the command `tlbsan`, in the file of `--json`: what it all comes to.
    Outcome(Outcome),
}

/// How much something matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Work that was not needed.
    Cost,
    /// Allowed by some kernels' design, or harmful only together with something else.
    Advice,
    /// A rule is broken.
    #[default]
    Error,
}

/// Something that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remark {
    /// Never [`Severity::Error`].
    pub severity: Severity,
    /// One sentence.
    pub text: String,
    /// Where it happened first.
    pub site: Site,
}

/// Invalidations by one call site, and how many of them cost more than they had to.
///
/// One operation may count in several of the last three columns; what removed nothing stale counts in `in_vain` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cost {
    /// The call site; without a PC: all those that were too many to tell apart.
    pub site: Site,
    /// The operation, without its operand.
    pub op: String,
    /// Operations.
    pub tlbis: u64,
    /// Those that named nothing stale, on no PE: removing what is valid only costs.
    pub in_vain: u64,
    /// Broadcasts of what only the issuing PE may have held.
    pub broadcast: u64,
    /// Those for every level where only leaves were stale.
    pub all_levels: u64,
    /// Those that range operations would have spared (FEAT_TLBIRANGE).
    pub one_by_one: u64,
}

/// An access by virtual address that went elsewhere than the tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accessed {
    /// The virtual address.
    pub va: u64,
    /// The physical address that was used.
    pub used: u64,
    /// The physical address that the tables give; `None`: they translate nothing there.
    pub tables: Option<u64>,
}

/// Where and by whom something was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Site {
    /// The PE.
    pub pe: usize,
    /// Virtual address of the instruction.
    pub pc: u64,
    /// Return addresses, innermost first.
    pub stack: Vec<u64>,
    /// The last label hint of the PE, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Number of the event: it orders what different PEs did, as far as the source of events saw an order.
    #[serde(default)]
    pub at: u64,
}

/// A descriptor, with what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Descriptor {
    /// The 64 bits.
    pub bits: u64,
    /// In words: `table at 0x4010_0000`, `page at 0x4020_0000, rw, nG`.
    pub text: String,
}

/// A TLBI that came between, and why it was not enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attempt {
    /// Who issued it.
    pub site: Site,
    /// The operation with its operand.
    pub op: String,
    /// Why the stale entry outlived it, as a sentence.
    pub why: String,
    /// The same as a cause.
    #[serde(with = "cause_name")]
    #[cfg_attr(feature = "schema", schemars(with = "cause_name::Name"))]
    pub cause: Cause,
}

/// The hint that says that nothing stale is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "hint", rename_all = "kebab-case")]
pub enum Claim {
    /// A frame went back to its allocator.
    FrameFreed {
        /// Physical address of the frame.
        pa: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// A range was declared flushed.
    FlushClaimed {
        /// First virtual address.
        start: u64,
        /// Bytes.
        size: u64,
        /// The ASID.
        asid: u16,
    },
}

/// An entry on the way from a root: which table it is read from, and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Step {
    /// Level of the table.
    pub level: i8,
    /// Physical address of the table.
    pub table: u64,
    /// Number of the entry in it.
    pub index: usize,
    /// The entry.
    pub entry: Descriptor,
}

/// The ways from the root to the entry that a violation is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ways {
    /// Through what may be cached; the last step is the old entry.
    pub before: Vec<Step>,
    /// Through the tables as they are, down to the level of the old entry at most.
    pub after: Vec<Step>,
}

/// One broken rule with its story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Violation {
    /// Counts the violations of a run that have a record, from 1; 0 for advice.
    #[serde(default)]
    pub number: u64,
    /// The case it happened in, if any.
    pub case: Option<u64>,
    /// The rule.
    #[serde(with = "kind_name")]
    #[cfg_attr(feature = "schema", schemars(with = "kind_name::Name"))]
    pub kind: Kind,
    /// Why the stale entry was still there.
    #[serde(with = "cause_name")]
    #[cfg_attr(feature = "schema", schemars(with = "cause_name::Name"))]
    pub cause: Cause,
    /// [`Severity::Error`], or advice: then it counts for nothing but itself.
    #[serde(default)]
    pub severity: Severity,
    /// First virtual address that the stale entry translates.
    pub start: u64,
    /// Bytes that it translates.
    pub size: u64,
    /// Level of the stale entry.
    pub level: i8,
    /// Whether it is a table entry (a walk cache entry) or a leaf.
    pub table: bool,
    /// The ASIDs it may be tagged with; empty: global, or any.
    pub asids: Vec<u16>,
    /// The PEs that may hold it.
    pub pes: Vec<usize>,
    /// Physical address of the slot it was read from.
    pub slot: u64,
    /// What may be cached.
    pub old: Descriptor,
    /// What is in memory now, where the new meaning comes from.
    pub new: Descriptor,
    /// Who removed the old entry.
    pub removed: Site,
    /// Who made it an error.
    pub trigger: Site,
    /// The invalidations since, in order, the most telling ones at most.
    pub attempts: Vec<Attempt>,
    /// How many more invalidations there were.
    pub more_attempts: u64,
    /// To how many entries the same store did this; the first is told.
    pub times: u64,
    /// The access, where one gave it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accessed: Option<Accessed>,
    /// The hint, where one said that nothing stale was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The tables that are walked, before and after.
    #[serde(default)]
    pub ways: Ways,
    /// The line of `--suppress` that takes it out, as `FILE:LINE`; never in the model's own records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<String>,
}

/// A verdict without its story, as sets of them are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// The rule.
    #[serde(with = "kind_name")]
    #[cfg_attr(feature = "schema", schemars(with = "kind_name::Name"))]
    pub kind: Kind,
    /// The cause.
    #[serde(with = "cause_name")]
    #[cfg_attr(feature = "schema", schemars(with = "cause_name::Name"))]
    pub cause: Cause,
    /// First virtual address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Level.
    pub level: i8,
}

impl From<Expected> for Verdict {
    fn from(e: Expected) -> Self {
        Self { kind: e.kind, cause: e.cause, start: e.start, size: e.size, level: e.level }
    }
}

impl From<&Violation> for Verdict {
    fn from(v: &Violation) -> Self {
        Self { kind: v.kind, cause: v.cause, start: v.start, size: v.size, level: v.level }
    }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaseResult {
    /// The number of its test point.
    pub id: u64,
    /// Stale entries that came into being in its window.
    pub opened: u64,
    /// Stale entries that a complete invalidation removed in its window.
    pub cleaned: u64,
    /// What it was expected to show.
    pub expected: Vec<Verdict>,
    /// What it did show.
    pub seen: Vec<Verdict>,
    /// Whether the two are equal as sets; and, where nothing was expected, whether the case was awake: something was
    /// opened and something was cleaned.
    pub passed: bool,
}

impl CaseResult {
    /// Expected and not seen.
    pub fn unmet(&self) -> impl Iterator<Item = &Verdict> {
        self.expected.iter().filter(|v| !self.seen.contains(v))
    }

    /// Seen and not expected.
    pub fn extra(&self) -> impl Iterator<Item = &Verdict> {
        self.seen.iter().filter(|v| !self.expected.contains(v))
    }

    /// Whether the checker saw stale entries come and go.
    pub fn awake(&self) -> bool {
        self.opened > 0 && self.cleaned > 0
    }
}

/// The last record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Events handled, but for those that no instruction causes: resets, ID registers, the exception level.
    pub events: u64,
    /// TLBIs among them.
    pub tlbis: u64,
    /// Stale entries that came into being.
    pub opened: u64,
    /// Stale entries removed by invalidation.
    pub cleaned: u64,
    /// Violations that have a record.
    pub violations: u64,
    /// Violations of the same kind and cause, from the same place in the code, as one that has a record.
    pub repeats: u64,
    /// Violations outside a case, or in a case that did not expect them.
    pub unexpected: u64,
    /// Accesses whose physical address was compared with the tables'.
    #[serde(default)]
    pub accesses: u64,
    /// Those of them that went where neither the tables nor anything stale leads.
    #[serde(default)]
    pub mismatched: u64,
    /// Remarks, and violations that are mere advice.
    #[serde(default)]
    pub remarks: u64,
    /// Cases that ended and passed.
    pub passed: u64,
    /// Cases that ended and failed.
    pub failed: u64,
}

/// How a run ended, as the command `tlbsan` judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outcome {
    /// The exit code: 0 clean, 1 violations, 2 could not run, 3 the guest failed, 4 a hang was cut.
    pub code: u8,
    /// The same in a word or two, with how many.
    pub word: String,
    /// Whatever is wrong, one sentence each.
    pub reasons: Vec<String>,
    /// Violations outside a case, or in one that failed or never ended, as far as they were told.
    pub unexpected: u64,
    /// Cases that passed.
    pub passed: u64,
    /// Cases that failed.
    pub failed: u64,
    /// Test points of the guest (TAP).
    pub points: u64,
    /// Those that it skipped.
    pub skipped: u64,
    /// Those that it failed itself.
    pub guest_failed: u64,
    /// How many it had planned.
    pub plan: Option<u64>,
    /// Violations that `--suppress` took out.
    pub suppressed: u64,
    /// QEMU's exit status; absent if a signal ended it.
    pub qemu_status: Option<i32>,
    /// The signal that ended QEMU.
    pub qemu_signal: Option<i32>,
}

macro_rules! by_name {
    ($module:ident, $type:ty) => {
        mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(super) fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(value.name())
            }

            /// In a schema: one of the names.
            #[cfg(feature = "schema")]
            pub(super) struct Name;

            #[cfg(feature = "schema")]
            impl schemars::JsonSchema for Name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    let names: Vec<&str> = <$type>::ALL.iter().map(|it| it.name()).collect();
                    schemars::json_schema!({ "type": "string", "enum": names })
                }
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                let name = String::deserialize(d)?;
                <$type>::from_name(&name).ok_or_else(|| D::Error::custom(format!("no such name: {name}")))
            }
        }
    };
}

by_name!(kind_name, super::Kind);
by_name!(cause_name, super::Cause);
