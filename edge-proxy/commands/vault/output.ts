import type { CommandIo } from '#contract/command.ts';

/** Prints a command's result: one JSON object, or lines for people. */
export function printResult(io: CommandIo, json: boolean | undefined, result: object, lines: readonly string[]): void {
  io.stdout.write(
    json ? `${JSON.stringify({ type: 'result', ...result })}\n` : lines.map((line) => `${line}\n`).join(''),
  );
}

/** Columns as wide as their widest cell; numbers on the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) =>
        /^[\d.,]+( [kKMGTPi]*B(\/s)?| s| %)?$/.test(cell) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!),
      )
      .join('  ')
      .trimEnd();
  return [header, ...rows].map(line);
}
