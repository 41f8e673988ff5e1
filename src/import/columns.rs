//! Which column of a table is which. Pure.

/// What a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Address,
    Name,
    Secret,
    Image,
    Site,
    BootMac,
}

/// The names that inventories have for it, the best one first; in lower case, letters and digits only.
const fn aliases(column: Column) -> &'static [&'static str] {
    match column {
        Column::Address => &[
            "bmcaddress",
            "bmc",
            "bmcip",
            "bmchost",
            "oobip",
            "oob",
            "ipmiaddress",
            "ipmiip",
            "ipmi",
            "redfish",
            "managementip",
            "mgmtip",
            "ilo",
            "idrac",
            "address",
            "ip",
        ],
        Column::Name => &["name", "hostname", "servername", "server", "nodename", "node", "host", "fqdn"],
        Column::Secret => &["secret", "secretname", "credentials", "credentialsref", "credentialssecret"],
        Column::Image => &["image", "osimage"],
        Column::Site => &["site"],
        Column::BootMac => &["bootmac", "bootmacaddress", "pxemac", "provisioningmac", "macaddress", "mac"],
    }
}

/// The position of each column in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    header: Vec<String>,
    used: Vec<(Column, usize)>,
}

impl Columns {
    pub(super) fn of<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let header: Vec<String> = header.into_iter().map(|name| name.trim().to_owned()).collect();
        let bare: Vec<String> = header
            .iter()
            .map(|name| {
                name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
            })
            .collect();
        let all =
            [Column::Address, Column::Name, Column::Secret, Column::Image, Column::Site, Column::BootMac];
        let used = all
            .into_iter()
            .filter_map(|column| {
                let place = |alias: &&str| bare.iter().position(|name| name == alias);
                Some((column, aliases(column).iter().find_map(place)?))
            })
            .collect();
        Self { header, used }
    }

    pub(super) fn place(&self, column: Column) -> Option<usize> {
        self.used.iter().find(|(used, _)| *used == column).map(|(_, place)| *place)
    }

    /// The names of all columns.
    pub(super) fn header(&self) -> String {
        self.header.join(", ")
    }

    /// The columns that nobody reads.
    pub(super) fn ignored(&self) -> Vec<String> {
        let is_used = |place: &usize| self.used.iter().any(|(_, used)| used == place);
        let all = self.header.iter().enumerate().filter(|(place, _)| !is_used(place));
        all.map(|(_, name)| name.clone()).collect()
    }
}
