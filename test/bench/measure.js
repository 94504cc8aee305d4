/** CPU time and peak memory of child processes, from /proc: what the kernel counted, not what a clock says. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

const TICKS_PER_SECOND = 100

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

/** Starts a node child and gives it with what waits for a line of its output. */
export function start(args, options = {}) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'], ...options })
  let text = ''
  const waiting = []
  const look = () => {
    for (const each of waiting.slice()) {
      const match = each.pattern.exec(text)
      if (!match) continue
      waiting.splice(waiting.indexOf(each), 1)
      each.resolve(match)
    }
  }
  child.stdout.on('data', data => {
    text += data
    look()
  })
  const line = pattern =>
    new Promise(resolve => {
      waiting.push({ pattern, resolve })
      look()
    })
  const end = new Promise(resolve => child.on('exit', resolve))
  return { child, line, end }
}
