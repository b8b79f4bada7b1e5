//! What the command line becomes, and what is refused.

use super::*;

fn setup() -> Setup<'static> {
    Setup {
        plugin: Path::new("/lib/libtlbsan_qemu.so"),
        fd: 7,
        backend: Backend::Memfd,
        ignore_hints: false,
        tell_all: false,
        cost: false,
        trace: false,
        blind: tlbsan::Blind::default(),
        record: None,
    }
}

fn built(text: &str) -> String {
    let args: Vec<OsString> = text.split_whitespace().map(Into::into).collect();
    let args = build(&args, &setup()).unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
    args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn refused(text: &str) -> String {
    let args: Vec<OsString> = text.split_whitespace().map(Into::into).collect();
    match build(&args, &setup()) {
        Ok(args) => panic!("{text} was accepted: {args:?}"),
        Err(refusal) => refusal.0,
    }
}

#[test]
fn one_vcpu_gets_memory_and_plugin_and_nothing_else() {
    assert_eq!(
        built("-M virt -cpu max -kernel k -nographic"),
        "-M virt -cpu max -kernel k -nographic \
         -object memory-backend-memfd,id=tlbsan-ram,size=134217728,share=on -machine memory-backend=tlbsan-ram \
         -plugin file=/lib/libtlbsan_qemu.so,fd=7,ram=0x40000000:0x8000000"
    );
}

#[test]
fn memory_has_the_size_that_the_user_asks_for() {
    for (args, size) in [
        ("-m 512", "0x20000000"),
        ("-m 1G", "0x40000000"),
        ("-m 1.5G", "0x60000000"),
        ("-m size=1G,slots=2,maxmem=4G", "0x40000000"),
        ("-m slots=2,maxmem=4G", "0x8000000"),
        ("-m 1G -m maxmem=2G", "0x40000000"),
        ("-m 512 -m 256", "0x10000000"),
        ("-m 0", "0x8000000"),
        ("-m 9k", "0x4000"),
        ("-machine memory.size=64M", "0x4000000"),
        ("--m 64", "0x4000000"),
        ("-append -m -m 64", "0x4000000"),
    ] {
        assert!(built(&format!("-M virt {args}")).ends_with(&format!("ram=0x40000000:{size}")), "{args}");
    }
}

#[test]
fn several_vcpus_run_in_threads_of_their_own() {
    for (args, accel) in [
        ("-M virt -smp 2", Some("accel=tcg,thread=multi")),
        ("-M virt -smp cpus=4", Some("accel=tcg,thread=multi")),
        ("-M virt -smp sockets=2,cores=2", Some("accel=tcg,thread=multi")),
        ("-M virt -smp maxcpus=2", Some("accel=tcg,thread=multi")),
        ("-M virt -smp 1,maxcpus=4", None),
        ("-M virt,smp.cpus=2", Some("accel=tcg,thread=multi")),
        ("-M virt -smp 2 -accel tcg", Some("accel=tcg,thread=multi")),
        ("-M virt -smp 2 -accel tcg,tb-size=64", Some("accel=tcg,tb-size=64,thread=multi")),
        ("-M virt -smp 2 -accel tcg,thread=multi", Some("accel=tcg,thread=multi")),
        ("-M virt,accel=tcg -smp 2", Some("accel=tcg,thread=multi")),
        ("-M virt -accel tcg,thread=single", Some("accel=tcg,thread=single")),
        ("-M virt -icount shift=1", None),
    ] {
        let line = built(args);
        let found: Vec<&str> = line.split(" -accel ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
        assert_eq!(found, accel.into_iter().collect::<Vec<_>>(), "{line}");
        assert!(!line.split(' ').any(|arg| arg.starts_with("virt,accel") || arg.contains(",accel=")), "{line}");
    }
}

#[test]
fn a_file_stands_in_for_a_memfd() {
    let setup = Setup { backend: Backend::File("/tmp/a,b".into()), ignore_hints: true, cost: true, ..setup() };
    let args = build(&["-M".into(), "virt".into()], &setup).expect("nothing to refuse");
    let text = args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    assert!(text.contains("memory-backend-file,id=tlbsan-ram,size=134217728,share=on,mem-path=/tmp/a,,b "), "{text}");
    assert!(text.contains(",backend=/tmp/a,,b,ignore-hints=on,cost=on"), "{text}");
}

#[test]
fn what_cannot_be_checked_is_refused_with_a_way_out() {
    for (args, word) in [
        ("-cpu max", "-M virt"),
        ("-M raspi4b", "raspi4b"),
        ("-M virt -smp 65", "-smp 64"),
        ("-M virt -smp 99999999,sockets=4", "-smp 64"),
        ("-M virt -smp sockets=9999999999,cores=9999999999999", "-smp 64"),
        ("-M virt -smp x", "no number"),
        ("-M virt -smp 2 -icount shift=1", "-icount"),
        ("-M virt -smp 2 -accel tcg,thread=single", "thread=single"),
        ("-M virt -accel kvm", "kvm"),
        ("-M virt,accel=hvf:tcg", "hvf"),
        ("-M virt -enable-kvm", "kvm"),
        ("-M virt,memory-backend=mine", "memory-backend"),
        ("-M virt -numa node", "-numa"),
        ("-M virt -mem-path /dev/shm", "-mem-path"),
        ("-M virt -device pc-dimm,memdev=m", "in one piece"),
        ("-M virt -device virtio-mem-pci,memdev=m", "in one piece"),
        ("-M virt -plugin libtlbsan_qemu.so", "--plugin"),
        ("-M virt -object memory-backend-ram,id=tlbsan-ram,size=1G", "tlbsan-ram"),
        ("-M virt -m lots", "lots"),
        ("-M virt -m 99999T", "99999T"),
        ("-M virt -readconfig f", "-readconfig"),
    ] {
        assert!(refused(args).contains(word), "{args}: {}", refused(args));
    }
}
