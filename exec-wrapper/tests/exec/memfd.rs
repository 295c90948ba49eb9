//! `--files memfd`: sealed descriptors that the step inherits.

use crate::harness::{CANARY, Place, Step, WRAPPER, is_root, may_mount, ran};

#[test]
fn a_memfd_holds_exactly_its_bytes_for_the_step_and_what_it_starts() {
    let place = Place::with_agent();
    let args = ["--files", "memfd", "-F", "A={{db.password}}", "-F", "B={{tls.cert.pem}}", "--", "sh", "-c"];
    // cat is the shell's child, and the second time a grandchild; twice, for nothing is used up.
    let script = "cat $A $B; sh -c 'cat $A'; stat -L -c %a:%u:%s $B";
    let run = place.run(&[&args[..], &[script]].concat());
    let uid = rustix::process::geteuid().as_raw();
    run.printed(&format!("{CANARY}CERT\n{CANARY}400:{uid}:5\n"));
}

#[test]
fn a_memfd_cannot_be_changed_by_the_step_and_its_descriptor_stands_at_the_beginning() {
    let place = Place::with_agent();
    let script = "import os
fd = int(os.environ['A'].rsplit('/')[-1])
print(os.read(fd, 100))
for change in lambda: os.write(fd, b'x'), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 9):
    try: change()
    except PermissionError: print('refused')
print(open(os.environ['A']).read())";
    let args = ["--files", "memfd", "-F", "A={{db.user}}", "--", "python3", "-c", script];
    place.run(&args).printed("b'alice'\nrefused\nrefused\nrefused\nalice\n");
}

#[test]
fn the_variable_of_the_directory_is_gone_with_memfds_and_a_dry_run_says_so() {
    let place = Place::with_agent();
    let args = ["--files", "memfd", "-F", "A={{db.user}}"];
    let mut wrapper = place.wrapper(&args);
    wrapper.env("KEYSIDE_FILES", "/of/another/step").args(["--", "sh", "-c", "echo ${KEYSIDE_FILES-unset}"]);
    ran(&mut wrapper).printed("unset\n");
    let run = place.run(&[&args[..], &["--dry-run", "--", "true"]].concat());
    assert!(run.stdout.contains("variable KEYSIDE_FILES <- nothing: it is removed\n"), "{run:?}");
    // Without a file too.
    let args = ["--files", "memfd", "-e", "X=1", "--", "sh", "-c", "echo ${KEYSIDE_FILES-unset}"];
    ran(place.wrapper(&args).env("KEYSIDE_FILES", "/of/another/step")).printed("unset\n");
    place.run(&["--files", "memfd", "-e", "KEYSIDE_FILES=x", "--", "true"]).refused(125, &["KEYSIDE_FILES", "hint: "]);
}

#[test]
fn inherited_descriptors_keep_their_numbers_and_memfds_come_above_those_of_scripts() {
    let place = Place::with_agent();
    let three = place.write("three", "three");
    let ten = place.write("ten", "ten");
    // Opens three descriptors, two of them where memfds would begin, and becomes the rest of the line.
    let open = "import os, sys
for number, path in (3, sys.argv[1]), (10, sys.argv[2]), (11, sys.argv[2]):
    fd = os.open(path, os.O_RDONLY)
    os.dup2(fd, number)
    os.set_inheritable(number, True)
    if fd != number: os.close(fd)
os.execv(sys.argv[3], sys.argv[3:])";
    let show = "cat /proc/$$/fd/3 /proc/$$/fd/10 /proc/$$/fd/11; echo; cat $A $B; echo; echo $A $B; ls /proc/$$/fd";
    let run = |wrapper: &[&str]| {
        let mut python = place.program("python3");
        python.args(["-c", open]).arg(&three).arg(&ten).args(wrapper).args(["/bin/sh", "-c", show]);
        let run = ran(python.env("A", "/dev/null").env("B", "/dev/null"));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        let mut lines = run.stdout.lines().map(str::to_owned);
        let head: Vec<_> = lines.by_ref().take(3).collect();
        (head, lines.collect::<std::collections::BTreeSet<_>>())
    };
    let (_, bare) = run(&[]);
    let (head, wrapped) = run(&[WRAPPER, "--files", "memfd", "-F", "A={{db.user}}", "-F", "B=two", "--"]);
    assert_eq!(head[..2], ["threetenten", "alicetwo"]);
    let numbers: Vec<_> =
        head[2].split(' ').map(|path| path.rsplit('/').next().expect("a number").to_owned()).collect();
    assert!(numbers.iter().all(|number| number.parse::<i32>().is_ok_and(|number| number > 11)), "{numbers:?}");
    assert_eq!(wrapped.difference(&bare).cloned().collect::<Vec<_>>(), numbers);
    assert!(bare.is_subset(&wrapped));
}

#[test]
fn every_file_without_a_variable_is_named_and_nothing_is_asked_for() {
    let place = Place::with_agent();
    let source = place.write("source", "x");
    let template = format!("t={}", source.display());
    let args =
        ["--files", "memfd", "-f", "a={{db.user}}", "--template", &template, "--secret-files", "tls", "-F", "OK=1"];
    let said = place.run(&[&args[..], &["--", "echo", "started"]].concat());
    let said = said.refused(125, &["--file a: ", "--template t: ", "--secret-files tls: ", "--file-env"]);
    assert!(!said.contains("OK"), "{said}");
    for flags in [&["--files-dir", "/dev/shm"][..], &["--insecure-files"]] {
        let args = [&["--files", "memfd", "-F", "A={{db.user}}"], flags, &["--", "echo", "started"]].concat();
        place.run(&args).refused(125, &[flags[0], "leave one of them out"]);
    }
    for names in [["A=1", "a=2"], ["A\n=1", "B=1"], ["..=1", "B=1"]] {
        place.run(&["--files", "memfd", "-F", names[0], "-F", names[1], "--", "true"]).refused(125, &["hint: "]);
    }
    let long = format!("{}=1", "X".repeat(256));
    place.run(&["--files", "memfd", "-F", &long, "--", "true"]).refused(125, &["255"]);
    assert_eq!(place.seen.count(), 0);
}

#[test]
fn a_memfd_belongs_to_the_user_of_the_step() {
    if !is_root("a_memfd_belongs_to_the_user_of_the_step") {
        return;
    }
    let place = Place::with_agent();
    let mut wrapper = place.wrapper(&["--user", "1234:77", "--files", "memfd", "-F", "A={{db.user}}", "--"]);
    wrapper.args(["sh", "-c", "cat $A; stat -L -c ' %a %u %g' $A; id -u"]).current_dir("/");
    ran(&mut wrapper).printed("alice 400 1234 77\n1234\n");
}

#[test]
fn memfds_leave_no_process_and_no_file_behind() {
    let place = Place::with_agent();
    let mut wrapper = place.wrapper(&["--files", "memfd", "-F", "A={{db.password}}", "--", "sh", "-c"]);
    let mut step =
        Step::start(wrapper.arg("read -r children </proc/$$/task/$$/children; echo \"$children.\"; read -r _"));
    assert_eq!(step.line(), ".", "the step has a child");
    assert!(std::fs::read_dir(place.path("runtime")).expect("listed").next().is_none());
    step.kill();
    assert!(!step.end().success());
}

#[test]
fn without_proc_a_memfd_is_refused_before_a_value_is_asked_for() {
    if !may_mount("without_proc_a_memfd_is_refused_before_a_value_is_asked_for") {
        return;
    }
    let place = Place::with_agent();
    let script =
        format!("mount -t tmpfs none /proc && exec {WRAPPER} --files memfd -F A={{{{db.user}}}} -- echo started");
    ran(place.program("unshare").args(["--mount", "sh", "-c", &script])).refused(125, &["/proc", "mount /proc"]);
    assert_eq!(place.seen.count(), 0);
}
