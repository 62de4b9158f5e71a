"""The checks of the workflows find what they are there for, and the commands of a release do what they should: those that write
run here with programs in the place of Docker, cosign and GitHub that note what they are asked.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import runs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORKFLOWS = HERE / "workflows"
BIN = Path(sys.executable).parent
CHECKOUT = """\
      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2
        with:
          persist-credentials: false
"""
MIRI = "      - run: cargo xtask miri\n"
CONCURRENCY = "concurrency:\n  group: release-${{ github.ref }}\n  cancel-in-progress: false\n"

# A file, what stands in it, what is put in its place, and a word of the complaint.
BROKEN = [
    # Names that are not there.
    ("release.yml", "runs-on: ${{ matrix.runner }}", "runs-on: ${{ matrix.runer }}", "runer"),
    ("release.yml", "ARCH: ${{ matrix.arch }}", "ARCH: ${{ matrix.arhc }}", "arhc"),
    ("release.yml", "needs: [check, ci]", "needs: [check, c1]", "c1"),
    ("release.yml", "needs: publish", "needs: publsh", "publsh"),
    ("release.yml", "secrets.GITHUB_TOKEN", "secrets.GITHUB_TOKE", "GITHUB_TOKE"),
    ("release.yml", "secrets.GITHUB_TOKEN", "secrets['GITHUB_TOKE']", "secret"),
    ("release.yml", "github.actor", "github.aktor", "aktor"),
    ("release.yml", "${{ github.actor }}", "${{ steps.sign.outputs.actor }}", "sign"),
    ("release.yml", "${{ github.actor }}", "${{ needs.chart.outputs.actor }}", "chart"),
    ("release.yml", "${{ github.actor }}", "${{ inputs.actor }}", "actor"),
    ("release.yml", "merge-multiple: true", "merge-multipel: true", "merge-multipel"),
    ("release.yml", "runs-on: ubuntu-24.04\n", "runs-on: ubuntu-24.40\n", "ubuntu-24.40"),
    ("release.yml", "./.github/workflows/ci.yml", "./.github/workflows/cl.yml", "cl.yml"),
    ("dependencies.yml", '"17 4 * * 1"', '"17 4 * * 8"', "17 4"),
    ("ci.yml", "timeout-minutes: 30", "timeout-minuts: 30", "timeout-minuts"),
    # Rights and tokens where code runs that is not the workflow's own.
    ("release.yml", "    needs: build\n", "    needs: build\n    permissions: { id-token: write }\n", "may be written"),
    ("release.yml", "    needs: build\n", "    needs: build\n    permissions: write-all\n", "named one by one"),
    ("release.yml", "      - name: What signs\n", f"{CHECKOUT}      - name: What signs\n", "may be written"),
    ("release.yml", '          go install "$COSIGN"', '          cargo xtask deny\n          go install "$COSIGN"', "may be written"),
    ("release.yml", "      OWNER: ", "      TOKEN: ${{ secrets.GITHUB_TOKEN }}\n      OWNER: ", "all of its steps"),
    ("release.yml", "permissions:\n  contents: read", "permissions:\n  contents: write", "more rights"),
    ("ci.yml", MIRI, f"{MIRI}        env: {{ TOKEN: '${{{{ secrets.GITHUB_TOKEN }}}}' }}\n", "given a secret"),
    # What the project asks beyond that.
    ("ci.yml", "      - run: ./.github/rust.sh\n", "", "with which Rust"),
    ("release.yml", "      - run: ./.github/rust.sh\n", "", "with which Rust"),
    ("release.yml", CONCURRENCY, "", "concurrency"),
    ("ci.yml", "@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2", "@v4", "pinned"),
]


class Checks(unittest.TestCase):
    """The checks refuse a broken workflow."""

    def complaint(self, name: str, change) -> str | None:
        """What the checks say of a changed copy of the workflows, or nothing when they pass it."""
        with tempfile.TemporaryDirectory() as folder:
            # A repository, because a workflow names another by its place in it.
            subprocess.run(["git", "init", "--quiet", folder], check=True)
            copies = Path(folder) / ".github" / "workflows"
            copies.mkdir(parents=True)
            for file in WORKFLOWS.glob("*.yml"):
                (copies / file.name).write_text(file.read_text())
            (copies / name).write_text(change((copies / name).read_text()))
            command = [HERE / "check-workflows.sh", BIN, *sorted(copies.glob("*.yml"))]
            result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        return result.stdout + result.stderr if result.returncode else None

    def test_copies_pass(self):
        self.assertIsNone(self.complaint("ci.yml", lambda text: text))

    def test_broken_copies_do_not(self):
        with ThreadPoolExecutor() as pool:
            said = pool.map(lambda row: self.complaint(row[0], lambda text: text.replace(row[1], row[2], 1)), BROKEN)
        for (name, sound, broken, word), complaint in zip(BROKEN, said, strict=True):
            with self.subTest(name=name, broken=broken):
                self.assertIn(sound, (WORKFLOWS / name).read_text())
                self.assertIn(word, complaint or "nothing")


class Commands(unittest.TestCase):
    """The commands of the workflows that nothing else runs before a tag."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.asked = self.folder / "asked"
        self.programs = self.folder / "bin"
        self.programs.mkdir()
        self.work = self.folder / "work"
        self.work.mkdir()

    def program(self, name: str, answers: str = "") -> None:
        """A program that notes its arguments, and answers by these cases of a shell's `case`."""
        file = self.programs / name
        # A password is read, or who gives it would be told that nobody listens.
        read = "*--password-stdin) cat >/dev/null ;;"
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.asked}"\ncase "$*" in\n{read}\n{answers}\n*) ;;\nesac\n')
        file.chmod(0o755)

    def run_job(self, name: str, job: str) -> list[str]:
        """What a job's commands asked for."""
        scripts = self.folder / "runs"
        scripts.mkdir()
        runs.main(scripts, [WORKFLOWS / name])
        environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "IMAGE": "registry.example/agent",
            "OWNER": "owner",
            "ACTOR": "actor",
            "COSIGN": "example.com/cosign@v1",
            "GITHUB_PATH": str(self.folder / "path"),
            "GITHUB_REF_NAME": "v0.1.5",
            "GITHUB_REPOSITORY": "owner/agent",
            "TOKEN": "token",
            "GH_TOKEN": "token",
        }
        own = sorted(scripts.glob(f"{Path(name).stem}-{job}-*.sh"), key=lambda file: int(file.stem.rsplit("-", 1)[1]))
        self.assertTrue(own)
        for script in own:
            command = ["bash", "-e", script]
            result = subprocess.run(command, env=environment, cwd=self.work, capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 0, f"{script.name}\n{result.stdout}{result.stderr}")
        return self.asked.read_text().splitlines()

    def test_latest_is_the_highest_release(self):
        self.program("gh", "*) printf 'v0.1.5\\nv0.10.0\\nv0.9.1\\nv1.0.0-rc1\\nnightly\\n' ;;")
        self.program("docker")
        asked = self.run_job("release.yml", "latest")
        self.assertEqual(
            asked[-1],
            "docker buildx imagetools create --tag registry.example/agent:latest registry.example/agent:0.10.0",
        )

    def test_what_is_published_is_signed_by_its_digest(self):
        dist = self.work / "dist"
        dist.mkdir()
        bills = [f"oom-watcher-0.1.5-{arch}-unknown-linux-gnu.cdx.json" for arch in ("x86_64", "aarch64")]
        for name in ["oom-watcher-0.1.5.tgz", *bills]:
            (dist / name).write_text(name)
        sums = subprocess.run(["sha256sum", *bills, "oom-watcher-0.1.5.tgz"], cwd=dist, stdout=subprocess.PIPE, check=True)
        (dist / "SHA256SUMS").write_bytes(sums.stdout)
        inspect = "\n".join(
            f"*'inspect registry.example/agent:0.1.5{arch} '*) echo sha256:{number} ;;"
            for arch, number in (("", 1), ("-amd64", 2), ("-arm64", 3))
        )
        self.program("docker", inspect)
        self.program("helm", "push*) echo Digest: sha256:4 ;;")
        self.program("go", "env*) echo /go ;;")
        self.program("cosign")
        asked = self.run_job("release.yml", "publish")
        signed = [line.split() for line in asked if line.startswith("cosign ")]
        self.assertEqual(
            [(words[1], words[-1]) for words in signed],
            [
                ("sign", "registry.example/agent@sha256:1"),
                ("attest", "registry.example/agent@sha256:2"),
                ("attest", "registry.example/agent@sha256:3"),
                ("sign", "ghcr.io/owner/charts/oom-watcher@sha256:4"),
                ("sign-blob", "SHA256SUMS"),
            ],
        )
        for bill, words in zip(bills, signed[1:3], strict=True):
            self.assertIn(f"dist/{bill}", words)
        # A user checks all of it by one file.
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=dist, check=True)
        self.assertIn("image.txt", (dist / "SHA256SUMS").read_text())

    def test_nothing_is_published_of_what_was_changed_on_the_way(self):
        dist = self.work / "dist"
        dist.mkdir()
        (dist / "SHA256SUMS").write_text(f"{'0' * 64}  chart.tgz\n")
        (dist / "chart.tgz").write_text("another")
        for program in ("docker", "helm", "go", "cosign"):
            self.program(program)
        with self.assertRaises(AssertionError):
            self.run_job("release.yml", "publish")
        self.assertNotRegex(self.asked.read_text(), "push|cosign sign")

    def ask_for_cosign(self, newest: str) -> None:
        """Has the weekly run compare the release's cosign with what would be the newest."""
        text = (WORKFLOWS / "release.yml").read_text()
        module, pinned = re.search(r"^  COSIGN: (\S+)/cmd/cosign@(\S+)$", text, re.MULTILINE).groups()
        (self.work / ".github").symlink_to(HERE)
        self.program("go", f"*' {module}@latest') echo {newest or pinned} ;;")
        self.run_job("dependencies.yml", "cosign")

    def test_the_newest_cosign_is_enough(self):
        self.ask_for_cosign("")

    def test_a_newer_cosign_is_told(self):
        with self.assertRaises(AssertionError):
            self.ask_for_cosign("v99.0.0")


class Pins(unittest.TestCase):
    """What is pinned in two places is the same in both, and somebody proposes the next."""

    def test_runners_and_image_compile_with_one_rust(self):
        with tempfile.TemporaryDirectory() as folder:
            stub = Path(folder) / "rustup"
            stub.write_text(f'#!/bin/sh\necho "$*" >>"{folder}/asked"\n')
            stub.chmod(0o755)
            environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
            subprocess.run([HERE / "rust.sh"], env=environment, check=True)
            install, default = (Path(folder) / "asked").read_text().splitlines()
        version = default.removeprefix("default ")
        self.assertRegex(version, r"^1\.\d+\.0$")
        self.assertTrue(install.startswith(f"toolchain install {version} --profile minimal "))
        builder = re.search(r"/library/rust:([\d.]+)-slim-bookworm", (ROOT / "Dockerfile.production").read_text())
        self.assertEqual(builder[1], version)

    def test_dependabot_sees_the_builder_image(self):
        # It reads literal images of FROM only, in files with "Dockerfile" in their name.
        text = (ROOT / "Dockerfile.production").read_text()
        self.assertRegex(text, r"(?m)^FROM (--platform=\S+ )?docker\.io/library/rust:[\d.]+-slim-bookworm(@\S+)? AS ")
        self.assertRegex((HERE / "dependabot.yml").read_text(), r"package-ecosystem: docker\n +directory: /\n")


if __name__ == "__main__":
    unittest.main()
