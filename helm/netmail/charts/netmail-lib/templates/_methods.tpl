{{/* Made by `python helm/methods.py` from the agents' own table of roles. */}}
{{- define "netmail.methods.connmgr" -}}
- callers: [cli]
  methods:
    - /grpc.reflection.v1.ServerReflection/ServerReflectionInfo
    - /grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo
    - /netmail.connmgr.v1.ConnectionManagerService/DescribeAddresses
    - /netmail.connmgr.v1.ConnectionManagerService/ForgetFailures
    - /netmail.connmgr.v1.ConnectionManagerService/ListLogins
    - /netmail.connmgr.v1.ConnectionManagerService/QueryAudit
- callers: [cli, connmgr, deliver, nmap, pop-imap, smtp]
  methods:
    - /grpc.health.v1.Health/Check
    - /grpc.health.v1.Health/List
    - /grpc.health.v1.Health/Watch
- callers: [cli, connmgr, nmap]
  methods:
    - /netmail.connmgr.v1.ConnectionManagerService/RevokeLogins
- callers: [cli, connmgr, pop-imap]
  methods:
    - /netmail.connmgr.v1.ConnectionManagerService/RegisterLogin
- callers: [cli, connmgr, pop-imap, smtp]
  methods:
    - /netmail.connmgr.v1.ConnectionManagerService/CheckConnection
    - /netmail.connmgr.v1.ConnectionManagerService/ReportEvent
- callers: [cli, connmgr, smtp]
  methods:
    - /netmail.connmgr.v1.ConnectionManagerService/CheckSender
- callers: [cli, pop-imap, smtp]
  methods:
    - /netmail.connmgr.v1.ConnectionManagerService/AnswerProbe
    - /netmail.connmgr.v1.ConnectionManagerService/ReportClients
    - /netmail.connmgr.v1.ConnectionManagerService/WatchLogins
{{- end -}}
{{- define "netmail.methods.nmap" -}}
- callers: [cli]
  methods:
    - /grpc.reflection.v1.ServerReflection/ServerReflectionInfo
    - /grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo
    - /netmail.nmap.v1.BackupService/EndBackup
    - /netmail.nmap.v1.BackupService/PrepareBackup
    - /netmail.nmap.v1.BackupService/ReadBackup
    - /netmail.nmap.v1.DirectoryService/AddAddress
    - /netmail.nmap.v1.DirectoryService/CreateDevicePassword
    - /netmail.nmap.v1.DirectoryService/CreateUser
    - /netmail.nmap.v1.DirectoryService/DeleteDevicePassword
    - /netmail.nmap.v1.DirectoryService/DeleteUser
    - /netmail.nmap.v1.DirectoryService/GetUser
    - /netmail.nmap.v1.DirectoryService/ListDevicePasswords
    - /netmail.nmap.v1.DirectoryService/ListUsers
    - /netmail.nmap.v1.DirectoryService/RemoveAddress
    - /netmail.nmap.v1.DirectoryService/SetPassword
    - /netmail.nmap.v1.DirectoryService/SetUserDisabled
    - /netmail.nmap.v1.DirectoryService/UpdateUser
    - /netmail.nmap.v1.QueueService/GetQueueMessage
    - /netmail.nmap.v1.QueueService/HoldQueue
    - /netmail.nmap.v1.QueueService/ListQueue
    - /netmail.nmap.v1.QueueService/ReleaseQueue
    - /netmail.nmap.v1.QueueService/RemoveQueue
    - /netmail.nmap.v1.QueueService/RetryQueue
- callers: [cli, connmgr, deliver, nmap, pop-imap, smtp]
  methods:
    - /grpc.health.v1.Health/Check
    - /grpc.health.v1.Health/List
    - /grpc.health.v1.Health/Watch
- callers: [cli, deliver]
  methods:
    - /netmail.nmap.v1.QueueService/Deliver
    - /netmail.nmap.v1.QueueService/Lease
    - /netmail.nmap.v1.QueueService/ReadMessage
    - /netmail.nmap.v1.QueueService/Report
- callers: [cli, pop-imap]
  methods:
    - /netmail.nmap.v1.MailboxService/AppendMessage
    - /netmail.nmap.v1.MailboxService/AppendSmallMessage
    - /netmail.nmap.v1.MailboxService/AppendSmallMessages
    - /netmail.nmap.v1.MailboxService/CopyMessages
    - /netmail.nmap.v1.MailboxService/CreateMailbox
    - /netmail.nmap.v1.MailboxService/DeleteMailbox
    - /netmail.nmap.v1.MailboxService/ExpungeMessages
    - /netmail.nmap.v1.MailboxService/FetchMessages
    - /netmail.nmap.v1.MailboxService/GetQuota
    - /netmail.nmap.v1.MailboxService/ListMailboxes
    - /netmail.nmap.v1.MailboxService/MoveMessages
    - /netmail.nmap.v1.MailboxService/OpenMailbox
    - /netmail.nmap.v1.MailboxService/OpenMailboxes
    - /netmail.nmap.v1.MailboxService/RenameMailbox
    - /netmail.nmap.v1.MailboxService/SearchMessages
    - /netmail.nmap.v1.MailboxService/SetSubscribed
    - /netmail.nmap.v1.MailboxService/StoreFlags
    - /netmail.nmap.v1.MailboxService/SyncMailbox
    - /netmail.nmap.v1.MailboxService/UseMaildrops
    - /netmail.nmap.v1.MailboxService/WatchMailboxes
- callers: [cli, pop-imap, smtp]
  methods:
    - /netmail.nmap.v1.DirectoryService/Authenticate
    - /netmail.nmap.v1.DirectoryService/ListContexts
- callers: [cli, smtp]
  methods:
    - /netmail.nmap.v1.DirectoryService/Resolve
    - /netmail.nmap.v1.QueueService/Submit
    - /netmail.nmap.v1.QueueService/SubmitStream
{{- end -}}
