/** CPU time and peak memory of child processes, from /proc: what the kernel counted, not what a clock says. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

const TICKS_PER_SECOND = 100
/** So much of a child's output is kept, to be shown when something goes wrong. */
const OUTPUT_MAX = 100_000

/** CPU seconds (user and system, all threads) and peak resident MiB of a running process. */
export function usage(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND, peakMiB: Number(peak[1]) / 1024 }
}

/** The middle of some numbers. */
export function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]
}

/**
 * Starts a node child and gives it with what waits for a line of its output, its end, and its output so far. Whoever waits for
 * a line that does not come before the end, or within `ms`, gets an error with the output.
 */
export function start(args, options = {}) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'], ...options })
  let text = ''
  let hasEnded = false
  const waiting = []
  const look = () => {
    for (const each of waiting.slice()) {
      const match = each.pattern.exec(text)
      if (match) each.settle(() => each.resolve(match))
      else if (hasEnded) each.fail('it has ended')
    }
  }
  child.stdout.on('data', data => {
    text = (text + data).slice(-OUTPUT_MAX)
    look()
  })
  const line = (pattern, ms = 600_000) =>
    new Promise((resolve, reject) => {
      const settle = act => {
        clearTimeout(timer)
        waiting.splice(waiting.indexOf(each), 1)
        act()
      }
      const fail = why =>
        settle(() => reject(new Error(`${args.join(' ')}: no ${pattern}: ${why}\n${text.slice(-3000)}`)))
      const timer = setTimeout(() => fail(`not within ${ms} ms`), ms)
      const each = { pattern, resolve, settle, fail }
      waiting.push(each)
      look()
    })
  const exited = new Promise(resolve => child.on('exit', code => resolve(code)))
  const drained = new Promise(resolve => child.stdout.on('end', resolve))
  const end = Promise.all([exited, drained]).then(([code]) => {
    hasEnded = true
    look()
    return code
  })
  return { child, line, end, output: () => text }
}
