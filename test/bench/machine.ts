import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { formatBytes } from '#contract/quantity.ts';

/** The machine in the words that matter for the figures; neither its name nor its paths. */
export function describeMachine(folder: string): string[] {
  const processors = cpus();
  const fileSystem = firstLine('stat', ['-f', '-c', '%T', folder]);
  return [
    `${processors[0]?.model ?? 'unknown processor'}, ${processors.length} cores, ${extensions()}`,
    `${formatBytes(totalmem())} of memory, Linux ${release().split('-')[0]}, ${fileSystem ?? 'unknown file system'}`,
    `Node ${process.version.slice(1)}, ${
      firstLine('zstd', ['--version'])
        ?.match(/v[\d.]+/)?.[0]
        .replace('v', 'zstd ') ?? 'no zstd'
    }`,
  ];
}

function extensions(): string {
  let flags = '';
  try {
    flags = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  } catch {
    // Not Linux: the figures stand without it.
  }
  const has = (name: string) => flags.split(' ').includes(name);
  return has('sha_ni') || has('sha2') ? 'with SHA extensions' : 'without SHA extensions';
}

function firstLine(program: string, args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim().split('\n')[0] : undefined;
}
