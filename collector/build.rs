//! Takes the built page in. Where there is none, the collector says how to build it: no tool beyond Rust is needed here.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What `ui/build` writes.
const PAGE: &str = "ui/dist";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PAGE}");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join(PAGE);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files = Vec::new();
    list(&root, &mut files)?;
    files.sort();
    let mut table = String::from("[\n");
    for (at, file) in files.iter().enumerate() {
        let path = file.strip_prefix(&root)?.to_str().ok_or("a file's name is no text")?.replace('\\', "/");
        let packed = out.join(format!("page-{at}.gz"));
        let mut encoder = GzEncoder::new(fs::File::create(&packed)?, Compression::best());
        encoder.write_all(&fs::read(file)?)?;
        encoder.finish()?;
        table += &format!("File {{ path: {path:?}, plain: include_bytes!({file:?}), gzip: include_bytes!({packed:?}) }},\n");
    }
    table += "]\n";
    fs::write(out.join("page.rs"), table)?;
    Ok(())
}

/// Files below a folder, none where it is missing. What begins with a dot is none of the page.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() {
            list(&path, files)?;
        } else if !is_hidden {
            files.push(path);
        }
    }
    Ok(())
}
