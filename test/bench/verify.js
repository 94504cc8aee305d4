/** Whether a capture took everything that was played to it: a number must never be of a broken capture. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What may stand in the status feed of a capture that had no trouble. */
const QUIET = new Set(['started', 'connected', 'subscribed', 'synced', 'disconnected', 'stopped', 'maintenance'])
const RECORD = /"event_type":"(?:open|change|match|done|received|update)"/

/** Calls back for each line of a feed. */
function eachLine(vault, exchange, feed, conn, visit) {
  const folder = join(vault, 'raw', exchange, feed)
  if (!existsSync(folder)) return
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith('.jsonl')) continue
    const path = join(entry.parentPath, entry.name)
    if (conn !== null && !path.startsWith(join(folder, conn))) continue
    for (const line of readFileSync(path, 'utf8').split('\n')) if (line !== '') visit(line)
  }
}

/** Throws unless the vault has as many frames and records as there must be, and no trouble in its status. */
export function verifyVault(vault, exchange, { sent, records }) {
  const faults = []
  let synced = 0
  eachLine(vault, exchange, 'status', null, line => {
    const { event } = JSON.parse(line)
    if (event === 'synced') synced++
    if (!QUIET.has(event)) faults.push(`status: ${line.slice(0, 400)}`)
  })
  if (synced !== 1) faults.push(`the book was built ${synced} times instead of once`)
  let taken = 0
  eachLine(vault, exchange, 'frames', `${exchange}-1`, line => {
    if (line.includes('"dir":"in"')) taken++
  })
  if (taken !== sent) faults.push(`${sent} messages were sent, ${taken} are in the frames feed`)
  let told = 0
  for (const feed of ['l3_events', 'l2_updates']) {
    eachLine(vault, exchange, feed, null, line => {
      // Of the events that one frame makes the last one counts.
      if (RECORD.test(line) && !line.includes('"last":false')) told++
    })
  }
  if (told !== records) faults.push(`${records} frames must leave a record behind, ${told} did`)
  if (faults.length > 0)
    throw new Error(`the capture of ${exchange} did not take the frames:\n${faults.slice(0, 20).join('\n')}`)
}
