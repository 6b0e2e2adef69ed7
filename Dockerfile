FROM apache/airflow:3.3.2-python3.12
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt
ENV PYTHONPATH=/opt/airflow
WORKDIR /opt/airflow
COPY --chown=airflow:0 dags dags
COPY --chown=airflow:0 plugins plugins
COPY --chown=airflow:0 include include
COPY --chown=airflow:0 stack stack
COPY --chown=airflow:0 deploy/fab-roles.json deploy/
# A volume takes its owner from the folder that it covers.
RUN mkdir -p logs users exports
