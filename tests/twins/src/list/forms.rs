//! The forms of TLBI, each in every scope, with nXS and without, once right and once not.

use super::{broken, right};
use crate::Twin;

/// Twins of each form in every scope: `$twins` makes two for one that reaches other PEs, and two for one that does not. It is told the
/// form's name with its suffixes, the DSB before and after it, and the operands.
macro_rules! in_every_scope {
    ($twins:ident: $($form:literal $operands:tt;)*) => {
        [$([
            $twins!(everywhere "ishst" ($form "is") "ish" $operands),
            $twins!(everywhere "ishst" ($form "isnxs") "ishnxs" $operands),
            $twins!(everywhere "oshst" ($form "os") "osh" $operands),
            $twins!(everywhere "oshst" ($form "osnxs") "oshnxs" $operands),
            $twins!(here ($form "") "nsh" $operands),
            $twins!(here ($form "nxs") "nshnxs" $operands),
        ]),*].as_flattened().as_flattened()
    };
}

/// By address, for the page's and for another; a local one on both PEs, and on one.
macro_rules! by_address {
    (everywhere $before:literal ($($form:literal)*) $after:literal ($operand:literal)) => {[
        right(concat!(
            "str pte 0; dsb ", $before, "; tlbi ", $($form,)* " va", $operand, "; dsb ", $after, "; str pte page:2"
        )),
        broken(
            concat!(
                "str pte 0; dsb ", $before, "; tlbi ", $($form,)* " va+2000", $operand, "; dsb ", $after, "; str pte page:2"
            ),
            &["remade wrong-range va+0 level 3"],
        ),
    ]};
    (here ($($form:literal)*) $after:literal ($operand:literal)) => {[
        right(concat!(
            "str pte 0; dsb ishst; tlbi ", $($form,)* " va", $operand, "; dsb ", $after,
            "; 1: tlbi ", $($form,)* " va", $operand, "; 1: dsb ", $after, "; str pte page:2"
        )),
        broken(
            concat!("str pte 0; dsb ishst; tlbi ", $($form,)* " va", $operand, "; dsb ", $after, "; str pte page:2"),
            &["remade local-only va+0 level 3"],
        ),
    ]};
}

/// As a whole, with a DSB in front of it, and with none; a local one on both PEs, and on one.
macro_rules! as_a_whole {
    (everywhere $before:literal ($($form:literal)*) $after:literal ()) => {[
        right(concat!("str pte 0; dsb ", $before, "; tlbi ", $($form,)* "; dsb ", $after, "; str pte page:2")),
        broken(
            concat!("str pte 0; tlbi ", $($form,)* "; dsb ", $after, "; str pte page:2"),
            &["remade not-ordered va+0 level 3"],
        ),
    ]};
    (here ($($form:literal)*) $after:literal ()) => {[
        right(concat!(
            "str pte 0; dsb ishst; tlbi ", $($form,)* "; dsb ", $after, "; 1: tlbi ", $($form,)* "; 1: dsb ", $after,
            "; str pte page:2"
        )),
        broken(
            concat!("str pte 0; dsb ishst; tlbi ", $($form,)* "; dsb ", $after, "; str pte page:2"),
            &["remade local-only va+0 level 3"],
        ),
    ]};
}

/// By IPA, with operands that name the page and such that do not, and why not; a local one on both PEs, and on one.
macro_rules! by_ipa {
    (everywhere $before:literal ($($form:literal)*) $after:literal ($good:literal $bad:literal $cause:literal)) => {[
        right(concat!(
            "str s2t.0 0; dsb ", $before, "; tlbi ", $($form,)* " ", $good, "; dsb ", $after,
            "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
        )),
        broken(
            concat!(
                "str s2t.0 0; dsb ", $before, "; tlbi ", $($form,)* " ", $bad, "; dsb ", $after,
                "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
            ),
            &[concat!("remade ", $cause, " 0 level 3")],
        ),
    ]};
    (here ($($form:literal)*) $after:literal ($good:literal $bad:literal $cause:literal)) => {[
        right(concat!(
            "str s2t.0 0; dsb ishst; tlbi ", $($form,)* " ", $good, "; dsb ", $after,
            "; 1: tlbi ", $($form,)* " ", $good, "; 1: dsb ", $after, "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
        )),
        broken(
            concat!(
                "str s2t.0 0; dsb ishst; tlbi ", $($form,)* " ", $good, "; dsb ", $after,
                "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
            ),
            &["remade local-only 0 level 3"],
        ),
    ]};
}

/// For both stages, completed and not; a local one on both PEs, and on one.
macro_rules! both_stages {
    (everywhere $before:literal ($($form:literal)*) $after:literal ()) => {[
        right(concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $($form,)* "; dsb ", $after, "; str s2t.0 s2page:2")),
        broken(
            concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $($form,)* "; dsb nsh; str s2t.0 s2page:2"),
            &["remade not-completed 0 level 3"],
        ),
    ]};
    (here ($($form:literal)*) $after:literal ()) => {[
        right(concat!(
            "str s2t.0 0; dsb ishst; tlbi ", $($form,)* "; dsb ", $after, "; 1: tlbi ", $($form,)* "; 1: dsb ", $after,
            "; str s2t.0 s2page:2"
        )),
        broken(
            concat!("str s2t.0 0; dsb ishst; tlbi ", $($form,)* "; dsb ", $after, "; str s2t.0 s2page:2"),
            &["remade local-only 0 level 3"],
        ),
    ]};
}

pub(super) const FORMS_BY_ADDRESS: &[Twin] = in_every_scope! { by_address:
    "vae1" (""); "vale1" (""); "vaae1" (""); "vaale1" ("");
    "rvae1" ("*2"); "rvale1" ("*2"); "rvaae1" ("*2"); "rvaale1" ("*2");
};

pub(super) const FORMS_AS_A_WHOLE: &[Twin] = in_every_scope! { as_a_whole: "aside1" (); "vmalle1" (); };

pub(super) const EL2_FORMS_BY_ADDRESS: &[Twin] = in_every_scope! { by_address:
    "vae2" (""); "vale2" (""); "rvae2" ("*2"); "rvale2" ("*2");
};

pub(super) const EL2_FORMS_AS_A_WHOLE: &[Twin] = in_every_scope! { as_a_whole: "alle2" (); };

pub(super) const STAGE_2_FORMS: &[Twin] = in_every_scope! { by_ipa:
    "ipas2e1" ("ipa+0" "ipa+2000" "wrong-range"); "ipas2le1" ("ipa+0" "ipa+2000" "wrong-range");
    "ripas2e1" ("ipa+0*2 ttl=3" "ipa+0*2 ttl=2" "wrong-ttl"); "ripas2le1" ("ipa+0*2" "ipa+2000*2" "wrong-range");
};

pub(super) const FORMS_OF_BOTH_STAGES: &[Twin] = in_every_scope! { both_stages: "vmalls12e1" (); "alle1" (); };
