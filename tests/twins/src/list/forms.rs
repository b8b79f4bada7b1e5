//! The forms of TLBI, each once right and once not.

use super::{broken, right};
use crate::Twin;

/// Each form by address twice: for the page's address, and for another. `operand`: what follows the address.
macro_rules! by_address {
    ($($before:literal $after:literal $operand:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!(
                "str pte 0; dsb ", $before, "; tlbi ", $form, " va", $operand, "; dsb ", $after, "; str pte page:2"
            )),
            broken(
                concat!(
                    "str pte 0; dsb ", $before, "; tlbi ", $form, " va+2000", $operand, "; dsb ", $after, "; str pte page:2"
                ),
                &["remade wrong-range va+0 level 3"],
            ),
        )*)*]
    };
}

/// Each local form twice: on one PE, and on both.
macro_rules! local {
    ($($form:literal)*) => {
        &[$(
            broken(
                concat!("str pte 0; dsb ishst; tlbi ", $form, "; dsb ish; str pte page:2"),
                &["remade local-only va+0 level 3"],
            ),
            right(concat!(
                "str pte 0; dsb ishst; tlbi ", $form, "; dsb nsh; 1: tlbi ", $form, "; 1: dsb nsh; str pte page:2"
            )),
        )*]
    };
}

/// Each form of `tlbi` as a whole twice: with the right DSB in front of it, and with none.
macro_rules! as_a_whole {
    ($($before:literal $after:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!("str pte 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $after, "; str pte page:2")),
            broken(
                concat!("str pte 0; tlbi ", $form, "; dsb ", $after, "; str pte page:2"),
                &["remade not-ordered va+0 level 3"],
            ),
        )*)*]
    };
}

/// Each form by IPA twice: `good` and `bad` are operands.
macro_rules! by_ipa {
    ($($before:literal $after:literal $good:literal $bad:literal $cause:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!(
                "str s2t.0 0; dsb ", $before, "; tlbi ", $form, " ", $good, "; dsb ", $after,
                "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
            )),
            broken(
                concat!(
                    "str s2t.0 0; dsb ", $before, "; tlbi ", $form, " ", $bad, "; dsb ", $after,
                    "; tlbi vmalle1is; dsb ish; str s2t.0 s2page:2"
                ),
                &[concat!("remade ", $cause, " 0 level 3")],
            ),
        )*)*]
    };
}

/// Each form for both stages twice: it reaches the other PE, and is completed, or not.
macro_rules! both_stages {
    ($($before:literal $good:literal $bad:literal $cause:literal: $($form:literal)*;)*) => {
        &[$($(
            right(concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $good, "; str s2t.0 s2page:2")),
            broken(
                concat!("str s2t.0 0; dsb ", $before, "; tlbi ", $form, "; dsb ", $bad, "; str s2t.0 s2page:2"),
                &[concat!("remade ", $cause, " 0 level 3")],
            ),
        )*)*]
    };
}

pub(super) const FORMS_BY_ADDRESS: &[Twin] = by_address! {
    "ishst" "ish" "": "vae1is" "vaae1is" "vaale1is" "vale1isnxs" "vae1isnxs" "vaae1isnxs" "vaale1isnxs";
    "oshst" "osh" "": "vae1os" "vale1os" "vaae1os" "vaale1os";
    "ishst" "ish" "*2": "rvae1is" "rvale1is" "rvaae1is" "rvaale1is" "rvae1isnxs";
    "oshst" "osh" "*2": "rvae1os" "rvale1os" "rvaae1os" "rvaale1os";
};

pub(super) const FORMS_LOCAL: &[Twin] = local! {
    "vae1 va" "vaae1 va" "vaale1 va" "aside1" "vmalle1" "rvae1 va*2" "rvale1 va*2" "rvaae1 va*2" "rvaale1 va*2"
};

pub(super) const FORMS_AS_A_WHOLE: &[Twin] = as_a_whole! {
    "oshst" "osh": "aside1os" "vmalle1os";
    "ishst" "ish": "aside1isnxs" "vmalle1isnxs";
};

pub(super) const EL2_FORMS: &[Twin] = by_address! {
    "ishst" "ish" "": "vale2is" "vae2is" "vale2isnxs";
    "oshst" "osh" "": "vae2os" "vale2os";
    "ishst" "ish" "*2": "rvae2is" "rvale2is";
    "oshst" "osh" "*2": "rvae2os" "rvale2os";
};

pub(super) const STAGE_2_FORMS: &[Twin] = by_ipa! {
    "ishst" "ish" "ipa+0" "ipa+2000" "wrong-range": "ipas2e1is" "ipas2le1is" "ipas2e1isnxs";
    "oshst" "osh" "ipa+0" "ipa+2000" "wrong-range": "ipas2e1os" "ipas2le1os";
    "ishst" "ish" "ipa+0*2 ttl=3" "ipa+0*2 ttl=2" "wrong-ttl": "ripas2e1is" "ripas2le1is";
    "oshst" "osh" "ipa+0*2 ttl=3" "ipa+0*2 ttl=2" "wrong-ttl": "ripas2e1os" "ripas2le1os";
};

pub(super) const FORMS_OF_BOTH_STAGES: &[Twin] = both_stages! {
    "oshst" "osh" "ish" "not-completed": "vmalls12e1os" "alle1os";
    "ishst" "ishnxs" "ishst" "not-completed": "vmalls12e1isnxs" "alle1isnxs";
};
