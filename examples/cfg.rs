fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let mut r = orch::load::LoadRequest {
        cwd: std::env::current_dir().unwrap(),
        environment: std::env::vars().collect(),
        ..Default::default()
    };
    r.options.contents = false;
    let mut fmt = "json".to_string();
    let mut i = 0;
    while i < a.len() {
        match a[i].as_str() {
            "-f" => {
                r.files.push(a[i + 1].clone());
                i += 1
            }
            "-p" => {
                r.project_name = Some(a[i + 1].clone());
                i += 1
            }
            "--profile" => {
                r.profiles.push(a[i + 1].clone());
                i += 1
            }
            "--env-file" => {
                r.env_files.push(a[i + 1].clone());
                i += 1
            }
            "--project-directory" => {
                r.project_directory = Some(a[i + 1].clone());
                i += 1
            }
            "--format" => {
                fmt = a[i + 1].clone();
                i += 1
            }
            "config" => {}
            s => {
                r.services.push(s.to_string());
                r.options.selection = orch::load::Selection::WithDependencies
            }
        }
        i += 1;
    }
    match orch::load::load(&orch::load::OsFiles, &r) {
        Ok(l) => {
            eprint!("{}", l.warnings);
            if fmt == "yaml" {
                print!("{}", orch::load::render_yaml(&l.model))
            } else {
                print!("{}", orch::load::render_json(&l.model))
            }
        }
        Err(e) => {
            eprint!("{e}");
            std::process::exit(1)
        }
    }
}
