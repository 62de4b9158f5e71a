//! Amounts of memory as Kubernetes writes them: `512Mi`, `1.5G`, `1e9`, `128000`, even `1500m`.

/// The amount in bytes, rounded up as the scheduler does; none for a text that is no amount, is negative or is too large.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    // Digits beyond these are less than a byte for every suffix up to Gi, and a rounding error beyond it.
    let fraction = &fraction[..fraction.len().min(12)];
    let tens = 10_u128.pow(fraction.len() as u32);
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let amount = parse(whole)?.checked_mul(tens)?.checked_add(parse(fraction)?)?;
    u64::try_from(amount.checked_mul(multiplier)?.div_ceil(divisor * tens)).ok()
}

/// What a suffix multiplies by, and divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    const NAMES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    let power = |name: &str| NAMES.iter().position(|known| *known == name).map(|at| at as u32 + 1);
    match suffix {
        "" => Some((1, 1)),
        "m" => Some((1, 1_000)),
        "u" => Some((1, 1_000_000)),
        "n" => Some((1, 1_000_000_000)),
        "Ki" => Some((1 << 10, 1)),
        _ if power(suffix).is_some() => Some((1000_u128.pow(power(suffix)?), 1)),
        _ => match suffix.strip_suffix('i') {
            Some(name) => Some((1 << (10 * power(name).filter(|power| *power > 1)?), 1)),
            None => exponent(suffix.strip_prefix(['e', 'E'])?),
        },
    }
}

fn exponent(text: &str) -> Option<(u128, u128)> {
    let exponent: i32 = text.parse().ok().filter(|exponent: &i32| exponent.abs() <= 20)?;
    let power = 10_u128.pow(exponent.unsigned_abs());
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_an_amount() {
        for (text, expected) in [
            ("0", Some(0)),
            ("134217728", Some(134_217_728)),
            ("512Mi", Some(512 << 20)),
            ("1Ki", Some(1024)),
            ("0.5Gi", Some(512 << 20)),
            (".5Gi", Some(512 << 20)),
            ("1.5G", Some(1_500_000_000)),
            ("129M", Some(129_000_000)),
            ("64k", Some(64_000)),
            ("128974848000m", Some(128_974_848)),
            ("1m", Some(1)),
            ("1e3", Some(1000)),
            ("12E6", Some(12_000_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1Ei", Some(1 << 60)),
            ("5e-1", Some(1)),
            ("", None),
            (".", None),
            ("Mi", None),
            ("-1", None),
            ("1.2.3", None),
            ("1 Gi", None),
            ("1GiB", None),
            ("1K", None),
            ("1ki", None),
            ("1e99", None),
            ("99999999999999999999", None),
            ("99999999999999999999999999999999999999999999Ei", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_surprise(text in "[0-9.]{0,40}[a-zA-Z]{0,3}[-0-9]{0,5}") {
            bytes(&text);
        }

        #[test]
        fn a_plain_number_is_itself(number in any::<u64>()) {
            prop_assert_eq!(bytes(&number.to_string()), Some(number));
        }
    }
}
