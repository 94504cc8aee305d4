import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { expect } from 'vitest'
import type { Row } from './driver.ts'

const BIN = 'bin/l3cap.js'

/** Builds the program unless that was done. */
export function ensureBuilt(): void {
  if (!existsSync('dist/cli.js')) execFileSync('npm', ['run', 'build'])
}

/** Files of the feeds that a rebuild writes, by their path below `raw`. */
export function derivedFiles(vault: string): Map<string, string> {
  const raw = join(vault, 'raw')
  const files = readdirSync(raw, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const paths = files.map(entry => relative(raw, join(entry.parentPath, entry.name)))
  const kept = paths.filter(path => !/^[^/]+\/(frames|status)\//.test(path.replaceAll('\\', '/')))
  return new Map(kept.sort().map(path => [path, join(raw, path)]))
}

/** Rebuilds a vault into another folder. */
export function rebuildVault(vault: string, out: string, jobs: number): string {
  execFileSync(process.execPath, [BIN, 'rebuild', '--vault', vault, '--out', out, '--jobs', String(jobs)])
  return out
}

/** Fails at the first difference between two sets of files. `about` is said with it. */
export function expectSameBytes(want: Map<string, string>, have: Map<string, string>, about: string): void {
  expect([...have.keys()], about).toEqual([...want.keys()])
  for (const [path, file] of want) {
    const [a, b] = [readFileSync(file, 'utf8').split('\n'), readFileSync(have.get(path)!, 'utf8').split('\n')]
    const place = a.findIndex((line, at) => line !== b[at])
    expect({ about, path, line: place, text: a[place] }).toEqual({ about, path, line: -1, text: b[place] })
    expect(b.length).toBe(a.length)
  }
}

/** The records of a feed of an instrument, hour after hour. `name` is the folder. */
export function recordsOf(vault: string, exchange: string, feed: string, name: string): Row[] {
  const folder = join(vault, 'raw', exchange, feed, name)
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name))
    .sort()
    .flatMap(path => readFileSync(path, 'utf8').split('\n').filter(Boolean))
    .map(line => JSON.parse(line) as Row)
}
