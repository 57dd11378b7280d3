"""Writes agent.jar, a manifest that makes Debian's JaCoCo an agent; runs inside the sandbox."""

import zipfile

CLASSES = ["org.jacoco.agent.rt", "org.jacoco.core", "asm", "asm-commons", "asm-tree"]
with zipfile.ZipFile("agent.jar", "w") as jar:
    words = ["Manifest-Version: 1.0", "Premain-Class: org.jacoco.agent.rt.internal.PreMain", "Class-Path: "]
    words += [f"  /usr/share/java/{name}.jar" for name in CLASSES]
    jar.writestr("META-INF/MANIFEST.MF", "\n".join(words) + "\n\n")
