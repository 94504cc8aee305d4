import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { Random } from '../../src/simulator/random.ts'

/** One effect on the disk, as the file system shim notes it. */
interface Entry {
  readonly op: 'base' | 'create' | 'link' | 'write' | 'sync' | 'truncate' | 'rename' | 'unlink'
  readonly path?: string
  readonly from?: string
  readonly ino?: number
  readonly size?: number
  readonly dir?: boolean
}

/**
 * What becomes of that which was never synced: `strict` loses all of it, `mixed` keeps a part by seed (of a file a part of
 * its end, or NUL bytes in its place).
 */
export type CutMode = 'strict' | 'mixed'

/** What the disk surely holds, and what the names stand for at present. */
class Disk {
  /** Names that a power cut cannot take, and those of this moment, with their inode numbers. */
  readonly durable = new Map<string, number>()
  readonly current = new Map<string, number>()
  readonly directories = new Set<string>()
  /** How much of each inode is on the disk. */
  readonly synced = new Map<number, number>()

  take(entry: Entry): void {
    const { op, path = '', ino = 0, size = 0 } = entry
    if (entry.dir && path !== '') this.directories.add(path)
    switch (op) {
      case 'base':
        this.durable.set(path, ino)
        this.current.set(path, ino)
        this.synced.set(ino, size)
        return
      case 'create':
        // Numbers are used again: what an earlier file of this number had on the disk is gone.
        this.synced.set(ino, 0)
        this.current.set(path, ino)
        return
      case 'link':
        this.current.set(path, ino)
        return
      case 'truncate':
        this.synced.set(ino, Math.min(size, this.synced.get(ino) ?? 0))
        return
      case 'sync':
        if (entry.dir) this.syncNames(path)
        else this.synced.set(ino, Math.max(size, this.synced.get(ino) ?? 0))
        return
      case 'rename':
        this.current.set(path, this.current.get(entry.from!) ?? 0)
        this.current.delete(entry.from!)
        return
      case 'unlink':
        this.current.delete(path)
    }
  }

  /** A directory was synced: its names are as they are now. */
  private syncNames(directory: string): void {
    for (const path of [...this.durable.keys()]) {
      if (dirname(path) === directory && !this.current.has(path)) this.durable.delete(path)
    }
    for (const [path, ino] of this.current) if (dirname(path) === directory) this.durable.set(path, ino)
  }
}

/**
 * Turns a vault, whose writer was killed, into what a power cut at the same moment would have left: files cut back to
 * what was synced, names as they were when their directory was last synced.
 */
export function cutPower(journal: string, graveyard: string, random: Random, mode: CutMode): void {
  const disk = new Disk()
  for (const line of readFileSync(journal, 'utf8').split('\n')) {
    // The last line may be cut off by the death of its writer: what it tells has not been answered.
    if (line.endsWith('}')) disk.take(JSON.parse(line) as Entry)
  }
  // Before anything is put back: what is copied then may get the number of a file that is gone.
  for (const path of disk.current.keys()) cutFile(path, disk, random, mode)
  const keep = () => mode === 'mixed' && random.next() < 0.5
  for (const [path, ino] of [...disk.current].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (disk.durable.get(path) !== ino && !keep()) {
      rmSync(path, { recursive: true, force: true })
      const old = disk.durable.get(path)
      if (old !== undefined) restore(path, old, graveyard)
    }
  }
  for (const [path, ino] of disk.durable) {
    if (!disk.current.has(path) && !disk.directories.has(path) && !keep()) restore(path, ino, graveyard)
  }
}

function restore(path: string, ino: number, graveyard: string): void {
  const grave = join(graveyard, String(ino))
  if (!existsSync(grave)) return
  mkdirSync(dirname(path), { recursive: true })
  copyFileSync(grave, path)
}

function cutFile(path: string, disk: Disk, random: Random, mode: CutMode): void {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats?.isFile()) return
  const synced = disk.synced.get(stats.ino)
  if (synced === undefined || synced >= stats.size) return
  const rest = stats.size - synced
  const kept = mode === 'mixed' ? random.integer(rest + 1) : 0
  const hasNuls = mode === 'mixed' && random.next() < 0.5
  if (!hasNuls) return truncateSync(path, synced + kept)
  const bytes = readFileSync(path).subarray(0, synced + kept)
  bytes.fill(0, synced)
  writeFileSync(path, bytes)
}
