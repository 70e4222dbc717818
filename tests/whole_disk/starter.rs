//! Does the EFI program that `scripts/disk-starter` makes look for the EFI partition of its image,
//! whatever table and sectors the image has?

use std::fs;
use std::process::Command;

use crate::fixtures::{
    Loop, MIB, drop_caches, loops_are_there, search_path, sparse, tool, tool_fed, tools_are_there,
    write_at,
};
use crate::scratch::Place;

/// An image with an EFI partition from byte 1 MiB on, in which nothing is.
fn image(place: &Place, label: &str, sector_bytes: u32) -> String {
    let disk = Loop::new(place, "disk", 64 * MIB, sector_bytes);
    let (start, count) = (MIB / u64::from(sector_bytes), 40 * MIB);
    let count = count / u64::from(sector_bytes);
    let script = format!("label: {label}\nstart={start}, size={count}, type=uefi\n");
    let script = place.write("script", script.as_bytes());
    tool_fed("sfdisk", &["--quiet", &disk.device], &script);
    drop_caches(&disk);
    disk.backing.clone()
}

/// The program, and what was said.
fn starter(place: &Place, image: &str) -> (String, String) {
    let program = place.path("disk.efi");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/disk-starter");
    let output = Command::new(script)
        .args([&program, image])
        .env("PATH", search_path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let program = fs::read(program).unwrap();
    (String::from_utf8_lossy(&program).into_owned(), said)
}

#[test]
fn the_efi_partition_is_found_or_missed_aloud() {
    let place = Place::new("starter");
    let tools = ["sfdisk", "losetup", "partx", "mkfs.vfat", "grub-mkimage"];
    if !tools_are_there(&tools) || !loops_are_there() {
        return;
    }
    for (label, sector_bytes) in [("gpt", 512), ("dos", 512), ("gpt", 4096), ("dos", 4096)] {
        let case = format!("{label}, {sector_bytes}");
        let image = image(&place, label, sector_bytes);
        let search = "search --no-floppy --fs-uuid --set=root 1234-ABCD\n";
        let (program, said) = starter(&place, &image);
        assert!(!program.contains(search), "{case}");
        let word = format!(
            "disk-starter: {image} has an EFI partition, but none with a FAT file system: UEFI machines will not start its disk\n"
        );
        assert_eq!(said, word, "{case}");

        let file = sparse(&place, "esp", 40 * MIB);
        let size = sector_bytes.to_string();
        tool("mkfs.vfat", &["-i", "1234ABCD", "-S", &size, &file]);
        write_at(&image, MIB, &fs::read(file).unwrap());
        let (program, said) = starter(&place, &image);
        assert!(program.contains(search), "{case}");
        assert_eq!(said, "", "{case}");
    }
}
