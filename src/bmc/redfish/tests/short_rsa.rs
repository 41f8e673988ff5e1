//! An RSA key of 1024 bits that signs: no library still does it.

const LIMBS: usize = 32;
type Number = [u32; LIMBS];

/// Of the key in `short_rsa.pem`, which was made for these tests and is used nowhere.
const MODULUS: &str = "d99a3ef6b65b80a669f5da9a8cbf8b3b3bcdb3c1fa5923704cb2e3d26026edcbe47aa9d0875bf3d72f310a22ea8142cd\
     b51e9ce6bfe4f0fa6b6b05b3d542f52524aa7b2dca14e0fe7ea0fa29413d8378aada49410c9ea788b6d521102c240c22\
     10eb0d875556d46d98bfded09f5ed6e4df6e178627b8e454f3a1abacbd7e0907";
const EXPONENT: &str = "6253cecbd0cf3c2cf6887fc58280333c0ae402ac4ea1e4dfa3e8da058029571ee119848e93fbbb0dab676f7b23985145\
     7ee85c61f0a85533f342230b85fc81a4f7b9fa391363be5fbb126c9927b57f498bb6331186a79a3de2facd8bf707b746\
     e4cd3617baa8085a6a9be12c0c093fd94bd88484792e9d765e818d708a687f11";

/// How SHA-256 is named in a signature of PKCS #1 (RFC 8017, section 9.2).
const SHA256_INFO: [u8; 19] =
    *b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// The signature of PKCS #1 v1.5 over this SHA-256 digest.
pub(super) fn sign(digest: &[u8; 32]) -> Vec<u8> {
    let end = [&[0], &SHA256_INFO[..], digest].concat();
    let mut padded = vec![0xff; LIMBS * 4 - end.len()];
    padded[..2].copy_from_slice(&[0, 1]);
    padded.extend(end);
    let (modulus, exponent) = (number(&bytes(MODULUS)), bytes(EXPONENT));
    let inverse = negative_inverse(modulus[0]);
    let times = |a: &Number, b: &Number| montgomery(a, b, &modulus, inverse);
    // R squared, so that a product with it is a number in Montgomery's form.
    let mut square = [0; LIMBS];
    square[0] = 1;
    for _ in 0..2 * 32 * LIMBS {
        square = double(&square, &modulus);
    }
    let one = {
        let mut one = [0; LIMBS];
        one[0] = 1;
        one
    };
    let (base, mut power) = (times(&number(&padded), &square), times(&one, &square));
    for bit in exponent.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        power = times(&power, &power);
        if bit == 1 {
            power = times(&power, &base);
        }
    }
    times(&power, &one).iter().rev().flat_map(|limb| limb.to_be_bytes()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn number(bytes: &[u8]) -> Number {
    let mut limbs = [0; LIMBS];
    for (limb, four) in limbs.iter_mut().rev().zip(bytes.chunks(4)) {
        *limb = u32::from_be_bytes(four.try_into().unwrap());
    }
    limbs
}

/// -1/n modulo 2^32, by Newton's method.
fn negative_inverse(n: u32) -> u32 {
    let inverse = (0..5).fold(1_u32, |x, _| x.wrapping_mul(2_u32.wrapping_sub(n.wrapping_mul(x))));
    inverse.wrapping_neg()
}

fn reduced(limbs: &Number, carry: bool, modulus: &Number) -> Number {
    if !carry && limbs.iter().rev().lt(modulus.iter().rev()) {
        return *limbs;
    }
    let mut borrow = false;
    std::array::from_fn(|at| {
        let (first, a) = limbs[at].overflowing_sub(modulus[at]);
        let (second, b) = first.overflowing_sub(u32::from(borrow));
        borrow = a || b;
        second
    })
}

fn double(limbs: &Number, modulus: &Number) -> Number {
    let mut carry = 0;
    let doubled = std::array::from_fn(|at| {
        let limb = limbs[at] << 1 | carry;
        carry = limbs[at] >> 31;
        limb
    });
    reduced(&doubled, carry == 1, modulus)
}

/// a b / R modulo the modulus.
fn montgomery(a: &Number, b: &Number, modulus: &Number, inverse: u32) -> Number {
    let mut sum = [0_u64; LIMBS + 2];
    for &digit in b {
        let mut carry = 0;
        for at in 0..LIMBS {
            let all = sum[at] + u64::from(a[at]) * u64::from(digit) + carry;
            (sum[at], carry) = (all & 0xffff_ffff, all >> 32);
        }
        let all = sum[LIMBS] + carry;
        (sum[LIMBS], sum[LIMBS + 1]) = (all & 0xffff_ffff, all >> 32);
        let factor = u64::from((sum[0] as u32).wrapping_mul(inverse));
        let mut carry = (sum[0] + factor * u64::from(modulus[0])) >> 32;
        for at in 1..LIMBS {
            let all = sum[at] + factor * u64::from(modulus[at]) + carry;
            (sum[at - 1], carry) = (all & 0xffff_ffff, all >> 32);
        }
        let all = sum[LIMBS] + carry;
        (sum[LIMBS - 1], sum[LIMBS]) = (all & 0xffff_ffff, sum[LIMBS + 1] + (all >> 32));
    }
    let limbs = std::array::from_fn(|at| sum[at] as u32);
    reduced(&limbs, sum[LIMBS] > 0, modulus)
}
