use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The judgement on an address without EGRESS_PRIVATE.
fn plain(text: &str) -> Result<(), Refusal> {
    judge(address(text), Reach { private: &[], is_exact: true }, |_| false)
}

/// The judgement on an address with a list in EGRESS_PRIVATE and an exact rule.
fn with(text: &str, private: &[&str]) -> Result<(), Refusal> {
    judge(address(text), Reach { private: &ranges(private), is_exact: true }, |_| false)
}

const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Both ends of each special range, and the neighbours outside, where these are not special.
#[test]
fn each_special_range_has_its_bounds() {
    let bounds = [
        ("0.0.0.1", "0.255.255.255", "", "1.0.0.0"),
        ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
        ("100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"),
        ("127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"),
        ("169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"),
        ("172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"),
        ("192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"),
        ("192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"),
        ("192.31.196.0", "192.31.196.255", "192.31.195.255", "192.31.197.0"),
        ("192.52.193.0", "192.52.193.255", "192.52.192.255", "192.52.194.0"),
        ("192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"),
        ("192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"),
        ("192.175.48.0", "192.175.48.255", "192.175.47.255", "192.175.49.0"),
        ("198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"),
        ("198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"),
        ("203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"),
        ("240.0.0.0", "255.255.255.254", "", ""),
        ("::1", "::1", "", ""),
        ("::2", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "2000::"),
        ("100::", "100::ffff:ffff:ffff:ffff", "", ""),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff::", "2001:200::"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff::", "2001:db9::"),
        ("2002:0808:0808::", "2002:fe00::", "2001:ffff::", "2003::"),
        ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "2620:4f:7fff:ffff::", "2620:4f:8001::"),
        ("3fff::", "3fff:0fff:ffff:ffff:ffff:ffff:ffff:ffff", "3ffe:ffff::", "3fff:1000::"),
        ("4000::", "5f00::1", "3fff:ffff::", ""),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""),
    ];
    for (first, last, before, after) in bounds {
        for special in [first, last] {
            assert!(plain(special).is_err(), "{special} is special");
        }
        for global in [before, after].into_iter().filter(|text| !text.is_empty()) {
            assert_eq!(plain(global), Ok(()), "{global} is not special");
        }
    }
}

#[test]
fn addresses_of_the_internet_are_reached() {
    for text in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "223.255.255.255", "2606:4700::1111", "2a00::1", "2400::1"] {
        assert_eq!(plain(text), Ok(()), "{text}");
        assert_eq!(judge(address(text), Reach { private: &[], is_exact: false }, |_| false), Ok(()), "{text}");
    }
}

#[test]
fn some_addresses_are_never_reached() {
    let texts = [
        "0.0.0.0",
        "::",
        "224.0.0.0",
        "239.255.255.255",
        "255.255.255.255",
        "ff00::",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "169.254.42.42",
        "169.254.0.23",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::ffff:255.255.255.255",
        "::ffff:0:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b::168.63.129.16",
        "64:ff9b:1::169.254.169.254",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:a9:fe:a9fe::",
        "64:ff9b:1:0:a9:fea9:fe00:0",
        "2002:a9fe:a9fe::1",
        "2002:e000:1::",
        "2002::",
        "2001:0:a9fe:a9fe::5601:5601",
        "2001:0:808:808:0:0:5601:5601",
    ];
    for text in texts {
        assert!(matches!(with(text, &EVERYTHING), Err(Refusal::Never(_))), "{text}");
    }
}

#[test]
fn a_special_address_needs_a_range_and_an_exact_rule() {
    assert_eq!(plain("10.1.2.3"), Err(Refusal::Unlisted("private")));
    assert_eq!(with("10.1.2.3", &["10.1.0.0/16"]), Ok(()));
    assert_eq!(with("10.1.2.3", &["10.1.2.3/32"]), Ok(()));
    assert_eq!(with("10.1.2.4", &["10.1.2.3/32", "10.2.0.0/16"]), Err(Refusal::Unlisted("private")));
    assert_eq!(with("fd00::1", &["10.0.0.0/8", "fd00::/8"]), Ok(()));
    assert_eq!(with("::1", &["::1/128"]), Ok(()));
    assert_eq!(with("127.0.0.1", &["::1/128"]), Err(Refusal::Unlisted("loopback")));
    assert_eq!(with("169.254.169.253", &["169.254.0.0/16"]), Ok(()));
    let inexact = Reach { private: &ranges(&EVERYTHING), is_exact: false };
    assert_eq!(judge(address("10.1.2.3"), inexact, |_| false), Err(Refusal::Inexact("private")));
    assert_eq!(judge(address("fd00::1"), inexact, |_| false), Err(Refusal::Inexact("private")));
}

#[test]
fn an_address_in_another_form_is_judged_like_both() {
    let forms = [
        ("::ffff:10.1.2.3", "::ffff:0:0/96"),
        ("::ffff:0:10.1.2.3", "::ffff:0:0:0/96"),
        ("::10.1.2.3", "::/96"),
        ("64:ff9b::10.1.2.3", "64:ff9b::/96"),
        ("64:ff9b:1::10.1.2.3", "64:ff9b:1::/48"),
        ("2002:a01:203::1", "2002::/16"),
        ("2001:0:a01:203::", "2001::/32"),
    ];
    for (text, form) in forms {
        assert!(plain(text).is_err(), "{text}");
        assert!(with(text, &["10.0.0.0/8"]).is_err(), "{text}: the form is not listed");
        assert!(with(text, &[form]).is_err(), "{text}: the address is not listed");
    }
    for (text, form) in forms.into_iter().filter(|(text, _)| !text.starts_with("2001:0")) {
        assert_eq!(with(text, &[form, "10.0.0.0/8"]), Ok(()), "{text}");
    }
    // The client of Teredo is 8.8.4.4 and the server is 8.8.8.8.
    assert_eq!(with("2001:0:808:808:0:0:f7f7:fbfb", &["2001::/32"]), Ok(()));
    // Public addresses in these forms are special, too.
    for text in ["::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::", "2001:0:808:808:0:0:f7f7:fbfb"] {
        assert!(matches!(plain(text), Err(Refusal::Unlisted(_))), "{text}");
    }
}

#[test]
fn a_refusal_says_why() {
    let text = |result: Result<(), Refusal>| result.unwrap_err().to_string();
    assert_eq!(text(plain("10.1.2.3")), "the address is private, and no range of EGRESS_PRIVATE holds the address");
    assert_eq!(text(with("::", &EVERYTHING)), "the address is unspecified, which no function reaches");
    assert_eq!(
        text(judge(address("127.0.0.1"), Reach { private: &[], is_exact: false }, |_| false)),
        "the address is loopback, which only a rule with an exact name or a range reaches"
    );
}

#[test]
fn an_address_of_this_machine_is_special() {
    let is_own = |own: IpAddr| own == address("8.8.8.8");
    let exact =
        |text, private: &[&str]| judge(address(text), Reach { private: &ranges(private), is_exact: true }, is_own);
    assert_eq!(exact("8.8.8.8", &[]), Err(Refusal::Unlisted("of this machine")));
    assert_eq!(exact("::ffff:8.8.8.8", &["::/0"]), Err(Refusal::Unlisted("of this machine")));
    assert_eq!(exact("8.8.8.8", &["8.8.8.8/32"]), Ok(()));
    assert_eq!(exact("8.8.4.4", &[]), Ok(()));
    let inexact = Reach { private: &ranges(&EVERYTHING), is_exact: false };
    assert_eq!(judge(address("8.8.8.8"), inexact, is_own), Err(Refusal::Inexact("of this machine")));
}
