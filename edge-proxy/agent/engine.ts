import type { Engine } from './job-work.ts';

/** The proxy's real engine. Its parts are loaded with the first job, so that a proxy starts fast. */
export const engine: Engine = {
  async runBackup(request, context) {
    const { runBackup } = await import('../engine/backup/backup.ts');
    return runBackup(request, context);
  },
  async restoreToFile(request, target, context) {
    const { restoreToFile } = await import('../engine/restore/restore-image.ts');
    return restoreToFile(request, target, context);
  },
  async openImage(path, signal) {
    const { openImage } = await import('../sources/image/image.ts');
    return openImage(path, { signal });
  },
};
