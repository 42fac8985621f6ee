//! Exact decimal numbers, for money.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A decimal number with exactly `PLACES` digits behind the point. It is kept as a whole number of its
/// smallest unit, so it is never rounded on its way in or out.
///
/// It is read from text such as `12.5` or `-0.07`: digits, a minus sign before them if need be, and at most
/// `PLACES` digits behind a point. Everything else is an error: an empty text, spaces, `+`, a comma,
/// `1e3`, `NaN`, `inf`. In JSON it is such a text or a whole number; a JSON number with a fraction is
/// refused, since most programs do not keep it exactly.
///
/// ```
/// use rowmill_guest::Cents;
///
/// let amount: Cents = "1234.5".parse().unwrap();
/// assert_eq!(amount.units(), 123_450);
/// assert_eq!(amount.to_string(), "1234.50");
/// // 0.25 %, rounded half away from zero.
/// assert_eq!(amount.share(25, 10_000), Some(Cents::from_units(309)));
/// assert!("NaN".parse::<Cents>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const PLACES: u32>(i64);

/// An amount of a currency with two decimals, counted in its hundredths.
pub type Cents = Decimal<2>;

/// Why a text is not a [`Decimal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDecimalError {
    kind: DecimalErrorKind,
    /// The text, cut where it is long.
    text: String,
    places: u32,
}

/// The kinds of [`ParseDecimalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecimalErrorKind {
    /// The text is empty.
    Empty,
    /// The text is something else than digits with a point among them.
    Malformed,
    /// There are more digits behind the point than the type has.
    TooManyPlaces,
    /// The number is beyond what the type holds.
    TooLarge,
}

/// A text is shown in an error up to this many characters.
const SHOWN_CHARACTERS: usize = 40;

impl<const PLACES: u32> Decimal<PLACES> {
    /// The number of smallest units in 1. It does not compile for more places than 64 bits hold.
    const ONE: i64 = 10_i64.pow(PLACES);

    /// A number of this many of its smallest units: for [`Cents`], of cents.
    pub const fn from_units(units: i64) -> Self {
        Self(units)
    }

    /// The number in its smallest unit: for [`Cents`], in cents.
    pub const fn units(self) -> i64 {
        self.0
    }

    /// The sum, or `None` where it is too large.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The difference, or `None` where it is too large.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The number times `numerator / denominator`, rounded half away from zero to the smallest unit.
    ///
    /// `None` where the denominator is 0 or the result is too large.
    pub fn share(self, numerator: i64, denominator: i64) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        let (product, denominator) = (i128::from(self.0) * i128::from(numerator), i128::from(denominator));
        let size = (product.abs() + denominator.abs() / 2) / denominator.abs();
        let units = if (product < 0) == (denominator < 0) { size } else { -size };
        i64::try_from(units).ok().map(Self)
    }
}

impl<const PLACES: u32> FromStr for Decimal<PLACES> {
    type Err = ParseDecimalError;

    fn from_str(text: &str) -> Result<Self, ParseDecimalError> {
        parse(text, PLACES).map(Self).map_err(|kind| {
            let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            ParseDecimalError { kind, text: shown, places: PLACES }
        })
    }
}

/// Reads a number in units of its last place.
fn parse(text: &str, places: u32) -> Result<i64, DecimalErrorKind> {
    if text.is_empty() {
        return Err(DecimalErrorKind::Empty);
    }
    let (negative, number) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return Err(DecimalErrorKind::Malformed),
        Some(parts) => parts,
        None => (number, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalErrorKind::Malformed);
    }
    let missing = (places as usize).checked_sub(fraction.len()).ok_or(DecimalErrorKind::TooManyPlaces)?;
    let digits = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
    // Downwards for a negative number: there is one more of them.
    digits
        .map(|digit| i64::from(digit - b'0'))
        .try_fold(0_i64, |units, digit| units.checked_mul(10)?.checked_add(if negative { -digit } else { digit }))
        .ok_or(DecimalErrorKind::TooLarge)
}

impl<const PLACES: u32> fmt::Display for Decimal<PLACES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, one) = (self.0.unsigned_abs(), Self::ONE.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        match PLACES as usize {
            0 => write!(f, "{sign}{units}"),
            places => write!(f, "{sign}{}.{:0places$}", units / one, units % one),
        }
    }
}

impl ParseDecimalError {
    /// The kind of fault in the text.
    pub const fn kind(&self) -> DecimalErrorKind {
        self.kind
    }
}

impl fmt::Display for ParseDecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, text, places } = self;
        let form = match places {
            0 => "write digits alone, such as 12".to_owned(),
            places => format!("write digits, with at most {places} behind a point, such as 12.5"),
        };
        match kind {
            DecimalErrorKind::Empty => write!(f, "the number is empty: {form}"),
            DecimalErrorKind::Malformed => write!(f, "{text:?} is not a decimal number: {form}"),
            DecimalErrorKind::TooManyPlaces => write!(f, "{text:?} has too many digits behind the point: {form}"),
            DecimalErrorKind::TooLarge => write!(f, "{text:?} is too large"),
        }
    }
}

impl std::error::Error for ParseDecimalError {}

impl<const PLACES: u32> Serialize for Decimal<PLACES> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const PLACES: u32> Deserialize<'de> for Decimal<PLACES> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits<const PLACES: u32>;

        impl<const PLACES: u32> Visitor<'_> for Digits<PLACES> {
            type Value = Decimal<PLACES>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number as text, such as \"12.5\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Self::Value, E> {
                self.visit_str(&whole.to_string())
            }

            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Self::Value, E> {
                self.visit_str(&whole.to_string())
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> DecimalErrorKind {
        text.parse::<Cents>().expect_err(text).kind()
    }

    #[test]
    fn an_amount_is_exact_and_comes_out_as_it_went_in() {
        for (text, units) in [("0", 0), ("100.00", 10_000), ("0.1", 10), ("-0.07", -7), ("0019.99", 1999), ("-0", 0)] {
            assert_eq!(text.parse::<Cents>().unwrap().units(), units, "{text}");
        }
        for text in ["0.00", "-0.05", "12.50", "92233720368547758.07", "-92233720368547758.08"] {
            assert_eq!(text.parse::<Cents>().unwrap().to_string(), text);
        }
        assert_eq!("7".parse::<Decimal<0>>().unwrap().to_string(), "7");
        assert_eq!("0.000000000000000001".parse::<Decimal<18>>().unwrap().units(), 1);
    }

    #[test]
    fn a_text_that_is_no_amount_is_refused() {
        assert_eq!(kind(""), DecimalErrorKind::Empty);
        let malformed = ["NaN", "inf", "-inf", "1e300", "1e2", "twelve", " 1", "1 ", "+1", "1,50", "1.", ".5", "-", "--1", "0x1", "1_0", "١", "1.-5"];
        for text in malformed {
            assert_eq!(kind(text), DecimalErrorKind::Malformed, "{text}");
        }
        assert_eq!(kind("0.001"), DecimalErrorKind::TooManyPlaces);
        assert_eq!(kind("92233720368547758.08"), DecimalErrorKind::TooLarge);
        assert_eq!(kind(&"9".repeat(1_000)), DecimalErrorKind::TooLarge);
        assert!("1.0".parse::<Decimal<0>>().is_err());
    }

    #[test]
    fn an_error_shows_the_text_and_the_form() {
        let error = |text: &str| text.parse::<Cents>().unwrap_err().to_string();
        let form = "write digits, with at most 2 behind a point, such as 12.5";
        assert_eq!(error("twelve"), format!("\"twelve\" is not a decimal number: {form}"));
        assert_eq!(error(""), format!("the number is empty: {form}"));
        assert_eq!(error("1.005"), format!("\"1.005\" has too many digits behind the point: {form}"));
        assert!(error(&"1".repeat(1_000)).len() < 200);
    }

    #[test]
    fn a_share_is_rounded_half_away_from_zero() {
        let share = |units, numerator, denominator| Cents::from_units(units).share(numerator, denominator).map(Cents::units);
        assert_eq!((share(200, 1, 400), share(199, 1, 400), share(-200, 1, 400)), (Some(1), Some(0), Some(-1)));
        assert_eq!((share(5, 1, 2), share(5, -1, 2), share(5, 1, -2), share(5, -1, -2)), (Some(3), Some(-3), Some(-3), Some(3)));
        assert_eq!((share(1, 1, 0), share(i64::MAX, 2, 1)), (None, None));
        assert_eq!(share(i64::MIN, 1, 1), Some(i64::MIN));
    }

    #[test]
    fn sums_do_not_wrap() {
        let most = Cents::from_units(i64::MAX);
        assert_eq!(most.checked_add(Cents::from_units(1)), None);
        assert_eq!(most.checked_sub(Cents::from_units(1)), Some(Cents::from_units(i64::MAX - 1)));
    }

    #[test]
    fn json_is_a_text_or_a_whole_number() {
        let read = |json: &str| serde_json::from_str::<Cents>(json).map(Cents::units).map_err(|error| error.to_string());
        assert_eq!((read("\"0.5\""), read("12"), read("-3")), (Ok(50), Ok(1200), Ok(-300)));
        assert!(read("0.5").unwrap_err().contains("expected a decimal number as text"));
        assert!(read("18446744073709551615").unwrap_err().contains("too large"));
        assert!(read("null").is_err());
        assert_eq!(serde_json::to_string(&Cents::from_units(1250)).unwrap(), "\"12.50\"");
    }
}
